"""Sphinx settings: tutorial, how-to, reference, background."""

from __future__ import annotations

from scdrugmap import __version__

project = "scDrugMap"
author = "the scDrugMap developers"
copyright = "the scDrugMap developers"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
napoleon_google_docstring = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
nitpicky = False
# Names of parameters, as n_genes, are taken for references to any attribute of that name.
suppress_warnings = ["ref.python"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"scDrugMap {version}"
