"""Refusals of collect before any source is read: invalid parameters, an unknown task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.stages.collect import CSV, RETRY, SYNTHETIC, cloud, configure, refuse


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"snapshto": "2026"}, "collect.snapshto: found '2026', expected no parameter of this name"),
        ({"snapshot": "2026-11-01T00:00:00"}, "collect.snapshot: found '2026-11-01T00:00:00' (str)"),
        ({"retry": RETRY | {"attempts": "4"}}, "collect.retry.attempts: found '4' (str)"),
        ({"retry": RETRY | {"attempts": 0}}, "greater than 0"),
        ({"sources": {}}, "collect.sources: found {}"),
        ({"sources": {"../x": SYNTHETIC}}, "source names of lowercase letters"),
        ({"sources": {"a": {"type": "ftp"}}}, "collect.sources.a: found {'type': 'ftp'}"),
        ({"sources": {"a": {"type": "sensors", "columns": None}}}, "exactly one of `http:` and `mqtt:`"),
        ({"sources": {"a": {"type": "external_api", "url": "http://x"}}}, "exactly one of `archive:` and `pages:`"),
        ({"sources": {"a": cloud("x", path="(")}}, "a valid regular expression"),
        ({"sources": {"a": cloud("x", select=[])}}, "select"),
        ({"sources": {"a": cloud("x", format=CSV | {"columns": {"p": "x", "q": "x"}})}}, "x is a duplicate"),
        ({"sources": {"a": cloud("x", format=CSV | {"separator": ";;"})}}, "separator"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_invalid_parameter_is_reported(
    workspace: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: str
) -> None:
    configure(workspace, made=SYNTHETIC)
    path = workspace / "tasks/digits/params.yaml"
    task = yaml.safe_load(path.read_text())
    task["collect"] |= change
    path.write_text(yaml.safe_dump(task))

    message = refuse(capsys)

    assert "tasks/digits/params.yaml: " in message
    assert words in message
    assert "remedy: " in message


def test_an_unknown_task_is_reported_with_the_existing_ones(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("task: digits", "task: digitz"))

    message = refuse(capsys)

    assert "found 'digitz'" in message
    assert "digits, pump, spoken-digits" in message
