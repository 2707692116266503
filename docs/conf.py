"""How Sphinx makes a site of the pages.

python -m sphinx -W --keep-going -b html docs build/site
"""

import importlib.metadata
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "Recurrent Zoo"
author = "The Recurrent Zoo authors"
release = version = importlib.metadata.version("recurrent-zoo")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docs.extensions.gallery",
    "docs.extensions.links",
    "docs.extensions.mathjax",
    "docs.extensions.reference",
]
exclude_patterns = ["extensions", "measurements"]

default_role = "py:obj"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["When to choose it", ("Attributes", "params_style")]

html_theme = "sphinx_book_theme"
html_title = f"Recurrent Zoo {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_persistent": [],  # the sidebar has the search already
    "show_toc_level": 2,
    "use_download_button": False,
}
