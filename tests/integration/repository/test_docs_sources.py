"""docs/reference/sources.md: every YAML snippet is valid, and every type of source has one."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
import yaml

from stages.params.collect import Collect, Source
from stages.params.files import Format
from tests.support.paths import REPOSITORY
from tests.support.stages.collect import RETRY

PAGE = (REPOSITORY / "docs/reference/sources.md").read_text(encoding="utf-8")
SNIPPETS: list[dict[str, Any]] = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def collect_params(snippet: dict[str, Any]) -> Collect:
    if "sources" in snippet:
        return Collect.model_validate(snippet)
    return Collect.model_validate({"snapshot": "2026-11-01T00:00:00Z", "retry": RETRY, "sources": snippet})


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: next(iter(snippet)))
def test_a_snippet_is_valid(snippet: dict[str, Any]) -> None:
    assert collect_params(snippet).sources


def test_every_type_and_format_and_parameter_of_a_source_is_shown() -> None:
    shown = [source for snippet in SNIPPETS for source in collect_params(snippet).sources.values()]
    blocks = get_args(get_args(Source)[0])
    formats = get_args(get_args(Format)[0])

    assert {type(source) for source in shown} == set(blocks)
    written = {name for source in shown for name in source.model_fields_set}
    assert written == {name for block in blocks for name in block.model_fields}
    for form in formats:
        assert f"`{{type: {get_args(form.model_fields['type'].annotation)[0]}" in PAGE
