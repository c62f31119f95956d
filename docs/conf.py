"""How Sphinx makes the site from these pages: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "generator")]

import tritier  # noqa: E402 - found by the line above, in a checkout that is not installed

project = "Tritier"
author = "The Tritier authors"
project_copyright = "The Tritier authors, Apache-2.0"
version = release = tritier.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "tritier_pages"]
exclude_patterns = ["_ext", "schemas"]
source_suffix = {".md": "markdown"}
root_doc = "index"
language = "en"

# Anchors of headings, as forges make them.
myst_heading_anchors = 4
# Blocks without a language are outputs and drawings: nothing to colour.
highlight_language = "none"

default_role = "literal"  # docstrings write `code`
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# No inventories of other projects are fetched, so that types of Python, numpy and pydantic, and
# those of this package that are not listed, lead nowhere.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = f"Tritier {release}"
html_static_path = ["_static"]
html_css_files = ["tritier.css"]
html_copy_source = False
html_show_sphinx = False
