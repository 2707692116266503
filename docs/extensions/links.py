"""The pages in the root of the repository as pages of the site, and links that lead there."""

import os
import re
from pathlib import Path
from typing import Any

from docs.extensions.files import write_changed

FOLDER = "project"
_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def setup(app: Any) -> dict[str, Any]:
    """Writes the pages, and turns links round when a page is read."""
    app.connect("builder-inited", _write)
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def project_pages(root: Path) -> dict[str, str]:
    """The root's Markdown files but the README, by file name."""
    found = sorted(path for path in root.glob("*.md") if path.name != "README.md")
    return {path.name.lower(): path.read_text(encoding="utf-8") for path in found}


def relink(text: str, docs: Path, here: Path, there: Path) -> str:
    """Turns the relative links of a Markdown page so that they are right on the site.

    Args:
      text: the page.
      docs: the folder of the site's sources; its parent is the root of the repository.
      here: the folder that links of the text are relative to.
      there: the folder that they are to be relative to.
    """

    def turned(match: re.Match[str]) -> str:
        opening, target, anchor, closing = match.groups()
        wanted = Path(os.path.normpath(here / target))
        if wanted.parent == docs.parent and wanted.suffix == ".md":
            wanted = docs / "index.md" if wanted.name == "README.md" else _moved(docs, wanted)
        relative = os.path.relpath(wanted, there).replace(os.sep, "/")
        return f"{opening}{relative}{anchor or ''}{closing}"

    return _LINK.sub(turned, text)


def _moved(docs: Path, page: Path) -> Path:
    return docs / FOLDER / page.name.lower()


def _filled(text: str, docs: Path) -> str:
    """Lists of pages without folders that hold none, at which Sphinx would stumble."""
    return re.sub(
        r"^(\S+)/\*$",
        lambda match: match[0] if any((docs / match[1]).glob("*.md")) else "",
        text,
        flags=re.MULTILINE,
    )


def _write(app: Any) -> None:
    write_changed(Path(app.srcdir) / FOLDER, project_pages(Path(app.srcdir).parent))


def _read(app: Any, name: str, source: list[str]) -> None:
    docs = Path(app.srcdir)
    path = Path(app.env.doc2path(name))
    if path.suffix != ".md":
        return
    if name == "index":
        readme = (docs.parent / "README.md").read_text(encoding="utf-8")
        source[0] = relink(readme, docs, docs.parent, docs) + "\n" + _filled(source[0], docs)
    elif path.parent == docs / FOLDER:
        source[0] = relink(source[0], docs, docs.parent, path.parent)
    elif path.parent.name != "layers":
        source[0] = relink(source[0], docs, path.parent, path.parent)
