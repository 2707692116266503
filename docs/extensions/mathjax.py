"""Equations without the internet: one file of MathJax from a package becomes part of the site."""

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

_PACKAGE, _FILE = "sphinx-mathjax-offline", "tex-svg.js"


def setup(app: Any) -> dict[str, Any]:
    """Says where the script is, and copies it there after the build."""
    app.setup_extension("sphinx.ext.mathjax")
    app.config.mathjax_path = _FILE
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _copy(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        shutil.copy(_script(), Path(app.outdir) / "_static" / _FILE)


def _script() -> Path:
    files = importlib.metadata.files(_PACKAGE) or []
    return next(Path(str(file.locate())) for file in files if file.name == _FILE)
