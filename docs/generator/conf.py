"""Sphinx configuration of the website (`make docs`): MyST reads Markdown pages, and AutoAPI writes the API pages."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from docs.generator.docstrings import to_rst

ROOT = Path(__file__).parents[2]

project = "edge-ai-workflow"
author = "the edge-ai-workflow authors"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
html_title = project

extensions = ["myst_parser", "autoapi.extension", "sphinx.ext.napoleon"]

myst_heading_anchors = 4  # down to this level, headings get the same link fragments as on GitHub

# AutoAPI parses the source without importing it, so it needs none of the project's libraries and runs no code.
autoapi_dirs = [str(ROOT / "stages"), str(ROOT / "fleet"), str(ROOT / "device/edge_agent")]
autoapi_root = "api"
autoapi_add_toctree_entry = False  # docs/generator/staging.py writes the navigation
autoapi_options = ["members", "show-inheritance", "show-module-summary"]
autoapi_member_order = "bysource"
autoapi_python_class_content = "both"
autoapi_own_page_level = "module"
default_role = "code"  # docstrings mark code with single backticks, as Markdown does
napoleon_numpy_docstring = False
suppress_warnings = [
    "ref.python",  # two packages have classes with the same name, so an annotation is ambiguous
    "autoapi.python_import_resolution",  # a name that a module imports from another module and exports again
]

highlight_language = "text"  # language of a code block that names none
html_theme = "pydata_sphinx_theme"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_theme_options = {
    "logo": {"text": project},
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "collapse_navigation": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_show_sourcelink = False
html_copy_source = False
copyright = "the edge-ai-workflow authors; Apache-2.0"


def setup(app: Any) -> None:
    """Register a conversion of docstrings, which runs before Napoleon parses Google sections (priority 500)."""
    app.connect("autodoc-process-docstring", _prepare, priority=400)


def _prepare(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(lines)
