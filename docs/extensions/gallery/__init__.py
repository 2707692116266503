"""The gallery: a page for every registered layer, and a table that compares them all."""

from pathlib import Path
from typing import Any

FOLDER = "layers"


def setup(app: Any) -> dict[str, Any]:
    """Writes the pages and pictures before Sphinx looks for documents."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write(app: Any) -> None:
    from docs.extensions.files import write_changed
    from docs.extensions.gallery import layers, overview, page, pictures, remembered, speed

    docs = Path(app.srcdir)
    runs = speed.runs(docs / "measurements")
    measured = speed.comparisons(runs)
    norms = remembered.gradients(docs.parent, Path(app.doctreedir))
    pages = {f"{name}.md": page.write(name, docs, measured, norms) for name in layers.names()}
    images = {
        f"{name}-{theme}.svg": pictures.draw(name, norms, theme)
        for name in norms
        for theme in pictures.COLOURS
    }
    index = overview.write(measured, speed.times(runs), norms)
    write_changed(docs / FOLDER, {**pages, "index.md": index})
    write_changed(docs / FOLDER / "images", images)
