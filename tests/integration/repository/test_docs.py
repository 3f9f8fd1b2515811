"""Every page: links lead somewhere, cells are short, generated pages are current, and the index names each page."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.generator import staging
from docs.generator.markdown import anchor, anchors, cells, links, word_count
from docs.generator.pages import PAGES, folder
from docs.generator.schema_tables import CELL_WORDS
from tests.support.paths import REPOSITORY


def pages() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return sorted(name for name in done.stdout.split("\0") if name and (REPOSITORY / name).is_file())


@cache
def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", pages())
def test_relative_links_and_anchors_exist(name: str) -> None:
    faults = []
    for line, url in links(text(name)):
        if re.match(r"[a-z]+:", url):
            continue
        path, _, fragment = url.partition("#")
        target = os.path.normpath(Path(name).parent / path) if path else name
        if not (REPOSITORY / target).exists():
            faults.append(f"{name}:{line}: {url}: no such file")
        elif fragment and target.endswith(".md") and fragment not in anchors(text(target)):
            faults.append(f"{name}:{line}: {url}: no such heading")

    assert faults == []


@pytest.mark.parametrize("name", pages())
def test_no_table_cell_is_long(name: str) -> None:
    long = [
        f"{name}:{line}: {word_count(cell)} words: {cell[:60]}"
        for line, cell in cells(text(name))
        if word_count(cell) > CELL_WORDS
    ]

    assert long == []


@pytest.mark.parametrize("build", PAGES, ids=lambda build: build.__name__)
def test_a_generated_page_is_current_and_describes_every_field(build: Any) -> None:
    page = build()

    assert page.missing == [], "add a description in the code"
    assert (folder() / page.name).read_text(encoding="utf-8") == page.text, "run: make docs-reference"


def test_the_index_names_every_page_of_the_docs() -> None:
    listed = {page for section in staging.sections() for page in section.pages}

    assert set(staging.site_pages()) - listed == {staging.INDEX}


def test_every_exit_code_has_a_section_in_troubleshooting() -> None:
    codes = {"Agent": "edge-agent", "Fleet": "python -m fleet", "Stage": "python -m stages.<stage>"}
    page = (folder() / "exit-codes.md").read_text(encoding="utf-8")
    for program, title in codes.items():
        part = page.split(f"## `{title}`")[1].split("\n## ")[0]
        listed = set(re.findall(r"^\| (\d+) \|", part, flags=re.MULTILINE)) - {"0"}
        written = set(re.findall(rf"^### {program} exit code (\d+)", text("docs/troubleshooting.md"), re.MULTILINE))
        assert listed and written == listed, program


def test_terms_name_settings_that_exist() -> None:
    """The words of other tools are mapped to dotted names, which the generated pages have."""
    named = set(
        re.findall(
            r"`((?:rollout|trial|source|install|capture|serve|paths|collect|prepare|export|compress)"
            r"(?:\.\w+)+)`",
            text("docs/reference/terms.md"),
        )
    )
    existing = set()
    for page in ("rollout-policy.md", "agent-configuration.md", "parameters.md"):
        block = ""
        for line in text(f"docs/reference/{page}").splitlines():
            if heading := re.match(r"##+ `([\w.\[\]<>]+)`", line):
                block = heading[1]
                existing.add(block)
            elif row := re.match(r"\| `(\w+)` \|", line):
                existing.add(f"{block}.{row[1]}")

    assert named and named - existing == set()


def test_anchors_are_those_of_github() -> None:
    assert anchor("`rollout.waves[]`") == "rolloutwaves"
    assert anchor("What is refused, and what to do") == "what-is-refused-and-what-to-do"
    assert anchors("# A\n## A\n```\n# no\n```\n") == {"a", "a-1"}


def test_the_issue_forms_are_what_github_takes() -> None:
    """https://docs.github.com/en/communities/using-templates-to-encourage-useful-issues-and-pull-requests"""
    for path in (REPOSITORY / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name == "config.yml":
            continue
        assert {"name", "description", "body"} <= set(form), path.name
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(set(ids)) == len(ids) and {field["type"] for field in form["body"]} <= {"markdown", "textarea"}
