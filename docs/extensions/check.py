"""Checks a built site: python -m docs.extensions.check build/site."""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
_NOT_LOADED = {"canonical", "search", "next", "prev", "index", "genindex", "author", "copyright"}


class _Page(HTMLParser):
    """The anchors of a page, and what it links to and loads."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes one element."""
        given = {name: value for name, value in attrs if value}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        attribute = _LOADED.get(tag)
        if attribute in given and not _NOT_LOADED & set(given.get("rel", "").split()):
            self.loaded.append(given[attribute])


def problems(site: Path) -> list[str]:
    """What is wrong with a site: dead links, and what comes from another place than the site."""
    pages = {
        path: _Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.relative_to(site).parts  # templates of the theme
    }
    if not pages:
        return [f"expected a built site in {site}, got no page"]
    found = []
    for path, page in pages.items():
        where = path.relative_to(site)
        for link in [*page.links, *page.loaded]:
            if wrong := _wrong(site, path, link, pages):
                found.append(f"{where}: {wrong}")
        for link in page.loaded:
            if urlsplit(link).scheme in ("http", "https") or link.startswith("//"):
                found.append(f"{where}: loads {link} from outside")
    return found


def missing_names(site: Path) -> Iterator[str]:
    """The public names that no reference page describes."""
    from docs.extensions import public

    for module in public.modules():
        page = site / "reference" / f"{module}.html"
        anchors = _Page(page.read_text(encoding="utf-8")).anchors if page.is_file() else set()
        for name in public.names(module):
            if f"{module}.{name}" not in anchors:
                yield f"{module}.{name} has no entry in reference/{module}.html"


def main(folder: str) -> int:
    """Prints what is wrong and returns the exit status."""
    site = Path(folder)
    found = [*problems(site), *missing_names(site)]
    print(
        *(found or [f"{folder}: no dead link, nothing from outside, every public name"]), sep="\n"
    )
    return 1 if found else 0


def _wrong(site: Path, path: Path, link: str, pages: dict[Path, _Page]) -> str:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return ""
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
    if target.is_dir():
        target /= "index.html"
    if not target.is_file() or not target.is_relative_to(site.resolve()):
        return f"{link} leads nowhere"
    page = pages.get(site / target.relative_to(site.resolve()))
    anchor = unquote(parts.fragment)
    if page and anchor and anchor not in page.anchors and not anchor.startswith(":~:"):
        return f"{link} has no such place on its page"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
