"""`make docs`: the site is built without a warning, has a page for every module, and loads nothing from the network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generator import site
from docs.generator.docstrings import to_rst
from docs.generator.staging import site_pages
from tests.support.paths import REPOSITORY

# What a browser loads without a click; links that a reader may follow are not included.
LOADED = re.compile(r"<(?:script|img)\b[^>]*\bsrc=\"(?:https?:)?//|<link\b[^>]*\bhref=\"(?:https?:)?//")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("docs")

    assert site.main(["--work", str(work)]) == 0, "dead links and pages outside the navigation are errors"
    return work / "html"


@pytest.mark.exhaustive
def test_every_page_is_on_the_site(html: Path) -> None:
    missing = [page for page in site_pages().values() if not (html / page).with_suffix(".html").is_file()]

    assert missing == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("folder", ["stages", "fleet", "device/edge_agent"])
def test_every_module_has_an_api_page(html: Path, folder: str) -> None:
    package = Path(folder).name
    for module in (REPOSITORY / folder).rglob("*.py"):
        name = module.relative_to(REPOSITORY / folder).with_suffix("")
        place = name.parent if name.name == "__init__" else name
        assert (html / "api" / package / place / "index.html").is_file() or name.name == "__main__", module


@pytest.mark.exhaustive
def test_the_site_loads_nothing_from_the_network_and_can_be_searched(html: Path) -> None:
    for page in html.rglob("*.html"):
        assert not LOADED.search(page.read_text(encoding="utf-8")), page

    assert "canary" in (html / "searchindex.js").read_text(encoding="utf-8")


def test_docstrings_become_plain_text_with_drawings_kept() -> None:
    lines = [
        "A sum over `a * b` and a*b.",
        "",
        "folder/",
        "    file     what it holds",
        "",
        "Args:",
        "    x: a_ value.",
    ]

    assert to_rst(lines) == [
        r"A sum over `a * b` and a\*b.",
        "",
        "::",
        "",
        "    folder/",
        "        file     what it holds",
        "",
        "Args:",
        r"    x: a\_ value.",
        "",
    ]
