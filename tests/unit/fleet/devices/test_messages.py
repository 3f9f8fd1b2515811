"""fleet.devices.messages: an invalid message affects its device alone, with a reason, and fails no step."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from pathlib import Path

import pytest

from fleet.cli import steps
from fleet.devices.messages import CommandResponse, TaskResult, parse_command, parse_status
from tests.support.fleet.rollouts import NEW, Json, plan, status_json

WRONG: list[Json] = [
    {"bad": None},
    {"time": "2026-01-01T00:00:00"},
    {"time": "yesterday"},
    {"device": []},
    {"service": {"running": True, "fault": None, "loaded": {"release": NEW}}},
    {"disk": {"free_bytes": float("inf")}},
    {"trial": 5},
    {"installed": "all"},
    {"report": {"release": NEW}},
    {"report": {**status_json()["report"], "inferences": -1}},
    {"report": {**status_json()["report"], "feedback": {"n": 1, "wrong": 2}}},
    {"device": {**status_json()["device"], "type": "\ud800"}},
]
SPOILT: list[str] = [
    *("5", "[]", "null", '"x"', "{}", "[" * 100_000, '{"a":' * 100_000, "NaN", "", "1" * 5000),
    '{"error": 1}',
    '{"schema_version": 1, "command": "status", "current": "x", "time": "y"}',
    *(json.dumps(status_json(**changed)) for changed in WRONG),
]


@pytest.mark.parametrize("printed", SPOILT, ids=range(len(SPOILT)))  # not their texts: a time is in them
def test_an_invalid_message_affects_its_device_alone(root: Path, printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {name: {"rc": 0, "stdout": json.dumps(status_json())} for name in "abc"} | {
        "d": {"rc": 0, "stdout": printed}
    }
    stdin = {"plan": plan(budget={"unreachable": 1}), "devices": devices}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(stdin)))

    result = steps.RUN["preflight"](Namespace(rollouts=root, check=True))

    assert result["order"] == ["a", "b", "c"]
    assert any(row.startswith("did not respond: d: ") for row in result["table"])
    assert parse_status(TaskResult(rc=0, stdout=printed)).reason


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"unreachable": True, "msg": "no route"}, "no route"),
        ({"rc": 127, "stdout": "", "stderr": "not found"}, "not found"),
        ({"rc": 5, "stdout": json.dumps({"error": "E", "where": "x", "found": "slow"})}, "x: slow"),
    ],
)
def test_failed_tasks_have_a_reason(result: Json, reason: str) -> None:
    assert parse_command(TaskResult.model_validate(result)) == CommandResponse(None, reason)
