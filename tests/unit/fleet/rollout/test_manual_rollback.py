"""fleet.rollout.manual_rollback: whom a rollback by hand calls back, by what the latest rollout brought."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fleet import audit_log
from fleet.cli import main
from fleet.records import rollout_audit
from fleet.records.state import Owner
from fleet.rollout import manual_rollback
from tests.support.fleet.rollouts import NEW, OLD, Json, begin, course, done, status, through_canary

LEFT = {"said": None, "status": status(OLD), "reason": "", "left": True}


def test_what_the_latest_rollout_brought_is_called_back(root: Path) -> None:
    through_canary(begin(root))

    assert manual_rollback.begin("farm", root)["brought"] == [NEW]


def test_a_rollout_that_touched_nobody_brought_nothing(root: Path) -> None:
    """What counts is the one before it."""
    begun = begin(root)
    through_canary(begun)
    course(begun).open(["b", "c", "d"])
    course(begun).judge({name: done() for name in "bcd"}, {})
    course(begun).settle({name: status(NEW) for name in "abcd"})
    course(begun).close({})
    begin(root)

    assert manual_rollback.begin("farm", root) | {"given_up": ""} == {"given_up": "", "brought": [NEW], "warnings": []}


def test_a_rollout_that_went_back_brought_nothing(root: Path) -> None:
    """What it replaced may turn out bad later."""
    begun = begin(root)
    through_canary(begun)
    course(begun).open(["b", "c", "d"])
    course(begun).judge({name: done(OLD) for name in "bcd"}, {})
    course(begun).settle({name: status(NEW) for name in "abcd"})
    ended = course(begun).close({name: {"status": status(OLD), "reason": ""} for name in "abcd"})
    assert ended["status"] == "failed"

    began = manual_rollback.begin("farm", root)

    assert began["brought"] is None
    assert any("every device is called back" in each for each in began["warnings"])


def test_who_calls_back_nobody_is_told(root: Path) -> None:
    through_canary(begin(root))

    ended = manual_rollback.end("farm", root, {"a": LEFT, "b": LEFT}, "alarms")

    assert ended["failed"] == ["a", "b"]
    assert ended["table"][0] == f"a: left alone: runs {OLD}, which the latest rollout did not bring"


def test_without_a_record_every_device_is_called_back(root: Path) -> None:
    began = manual_rollback.begin("farm", root)

    assert began["brought"] is None
    assert any("every device is called back" in each for each in began["warnings"])
    assert any("every device is called back" in row for row in manual_rollback.end("farm", root, {}, "alarms")["table"])


def test_a_record_that_cannot_be_read_stops_nothing(root: Path) -> None:
    begun = begin(root)
    through_canary(begun)
    (Path(begun["record"]) / "state.json").write_text("{")

    began = manual_rollback.begin("farm", root)

    assert began["brought"] is None
    assert any("every device is called back" in each for each in began["warnings"])


def test_what_may_not_be_while_a_rollout_runs_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    idle = ["--json", "wave", "idle", "--fleet", "farm", "--rollouts", str(root)]
    made = course(begin(root))
    assert main.main(idle) == 0, "its process is this one"
    made.save(replace(made.state, owner=Owner("elsewhere", 1, 1.0)))
    capsys.readouterr()

    assert main.main(idle) == 7
    assert "process 1 on elsewhere" in capsys.readouterr().out

    (made.record.folder / "state.json").write_text("{")
    assert main.main(idle) == 0


def test_whoever_is_named_is_called_back(root: Path) -> None:
    through_canary(begin(root))

    assert manual_rollback.begin("farm", root, every=True) == {"given_up": None, "brought": None, "warnings": []} | {
        "given_up": next((root / "farm").glob("*/plan.json")).parent.name
    }


def test_who_is_left_alone_is_named_and_who_says_nothing_is_not_back(root: Path) -> None:
    through_canary(begin(root))
    silent: Json = {"said": None, "status": None, "reason": "no route to host", "left": True}
    called: Json = {"said": {"release": OLD}, "status": status(OLD), "reason": "", "left": False}

    ended = manual_rollback.end("farm", root, {"a": called, "b": LEFT, "c": silent}, "alarms")

    assert ended["failed"] == ["c"]
    assert ended["table"] == [
        f"a: runs {OLD}",
        "c: NOT back: no route to host",
        f"b: left alone: runs {OLD}, which the latest rollout did not bring",
        "warning: 1 device(s) were left alone; with --limit all every device is called back",
    ]
    assert {line["device"] for line in rollout_audit.of(root / "farm" / audit_log.FILE)} == {"a", "c"}, (
        "nothing was done to b"
    )


def test_devices_are_called_back_without_records(root: Path, paused: Json) -> None:
    """A record that cannot be read, and a place where none can be written."""
    (Path(paused["record"]) / "state.json").write_text("{")
    told = {"a": {"said": {"release": OLD}, "status": status(OLD), "reason": ""}}
    nowhere = root.parent / "file"
    nowhere.write_text("")

    for place, words in ((root, "not a rollout's record"), (nowhere, "Not a directory")):
        assert any(words in each for each in manual_rollback.begin("farm", place)["warnings"])
        ended = manual_rollback.end("farm", place, told, "alarms")
        assert ended["failed"] == [] and ended["table"][0] == f"a: runs {OLD}"
        assert any("warning: no rollout was given up" in row and words in row for row in ended["table"])


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("state.json", {"devices": []}),
        ("state.json", {"waves": 5}),
        ("plan.json", {"fleet": None}),
        ("plan.json", {"schema_version": 2}),
        ("plan.json", {"inventory": 5}),
        ("plan.json", {"devices": []}),
    ],
)
def test_devices_are_called_back_whatever_a_record_has_become(
    root: Path, paused: Json, file: str, changed: Json
) -> None:
    """None: it is not there."""
    path = Path(paused["record"]) / file
    left = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({name: value for name, value in left.items() if value is not None or name == "ended"}))

    began = manual_rollback.begin("farm", root)
    ended = manual_rollback.end(
        "farm", root, {"a": {"said": {"release": OLD}, "status": status(OLD), "reason": ""}}, "alarms"
    )

    assert began["given_up"] is None and "no rollout was given up" in began["warnings"][0]
    assert ended["failed"] == [] and ended["table"][0] == f"a: runs {OLD}"
    assert any("no rollout was given up" in row for row in ended["table"])


def test_why_devices_were_called_back_is_kept_where_they_are_not_back(root: Path) -> None:
    manual_rollback.end("farm", root, {"a": {"said": None, "status": None, "reason": "no route to host"}}, "alarms")

    assert [line["detail"] for line in rollout_audit.of(root / "farm" / audit_log.FILE)] == ["alarms; no route to host"]
