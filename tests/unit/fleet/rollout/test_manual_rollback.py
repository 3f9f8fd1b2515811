"""fleet.rollout.manual_rollback: whom a rollback by hand calls back, by what the latest rollout brought."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fleet import audit_log
from fleet.cli import main
from fleet.devices.messages import CommandResult, StatusResponse
from fleet.records import rollout_audit
from fleet.records.state import Owner
from fleet.rollout.manual_rollback import ManualRollback, begin_manual_rollback, finish_manual_rollback
from fleet.rollout.step_results import ManualRollbackStart, PreflightResult
from tests.support.fleet.rollouts import NEW, OLD, Json, begin, controller, done, folder, status, through_canary

SKIPPED = ManualRollback(None, StatusResponse(status(OLD)), skipped=True)


def test_what_the_latest_rollout_brought_is_called_back(root: Path) -> None:
    through_canary(begin(root))

    assert begin_manual_rollback("farm", root).brought == [NEW]


def test_a_rollout_that_touched_nobody_brought_nothing(root: Path) -> None:
    """What counts is the one before it."""
    begun = begin(root)
    through_canary(begun)
    controller(begun).open_wave(["b", "c", "d"])
    controller(begun).judge_wave({name: done() for name in "bcd"}, {})
    controller(begun).decide_rollbacks({name: status(NEW) for name in "abcd"})
    controller(begun).close({})
    begin(root)

    begun = begin_manual_rollback("farm", root)
    assert (begun.brought, begun.warnings) == ([NEW], [])


def test_a_rollout_that_went_back_brought_nothing(root: Path) -> None:
    """What it replaced may turn out bad later."""
    begun = begin(root)
    through_canary(begun)
    controller(begun).open_wave(["b", "c", "d"])
    controller(begun).judge_wave({name: done(OLD) for name in "bcd"}, {})
    controller(begun).decide_rollbacks({name: status(NEW) for name in "abcd"})
    ended = controller(begun).close({name: StatusResponse(status(OLD)) for name in "abcd"})
    assert ended.status == "failed"

    began = begin_manual_rollback("farm", root)

    assert began.brought is None
    assert any("every device rolls back" in each for each in began.warnings)


def test_who_calls_back_nobody_is_told(root: Path) -> None:
    through_canary(begin(root))

    ended = finish_manual_rollback("farm", root, {"a": SKIPPED, "b": SKIPPED}, "alarms")

    assert ended.failed == ["a", "b"]
    assert ended.table[0] == f"a: left alone: runs {OLD}, which the latest rollout did not deliver"


def test_without_a_record_every_device_is_called_back(root: Path) -> None:
    began = begin_manual_rollback("farm", root)

    assert began.brought is None
    assert any("every device rolls back" in each for each in began.warnings)
    assert any("every device rolls back" in row for row in finish_manual_rollback("farm", root, {}, "alarms").table)


def test_a_record_that_cannot_be_read_stops_nothing(root: Path) -> None:
    begun = begin(root)
    through_canary(begun)
    (folder(begun) / "state.json").write_text("{")

    began = begin_manual_rollback("farm", root)

    assert began.brought is None
    assert any("every device rolls back" in each for each in began.warnings)


def test_what_may_not_be_while_a_rollout_runs_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    idle = ["--json", "wave", "idle", "--fleet", "farm", "--rollouts", str(root)]
    made = controller(begin(root))
    assert main.main(idle) == 0, "its process is this one"
    made.save(replace(made.state, owner=Owner("elsewhere", 1, 1.0)))
    capsys.readouterr()

    assert main.main(idle) == 7
    assert "process 1 on elsewhere" in capsys.readouterr().out

    (made.record.folder / "state.json").write_text("{")
    assert main.main(idle) == 0


def test_whoever_is_named_is_called_back(root: Path) -> None:
    through_canary(begin(root))

    rollout = next((root / "farm").glob("*/plan.json")).parent.name
    assert begin_manual_rollback("farm", root, every=True) == ManualRollbackStart(rollout, None, [])


def test_who_is_left_alone_is_named_and_who_says_nothing_is_not_back(root: Path) -> None:
    through_canary(begin(root))
    silent = ManualRollback(None, StatusResponse(None, "no route to host"), skipped=True)
    called = ManualRollback(CommandResult(release=OLD), StatusResponse(status(OLD)))

    ended = finish_manual_rollback("farm", root, {"a": called, "b": SKIPPED, "c": silent}, "alarms")

    assert ended.failed == ["c"]
    assert ended.table == [
        f"a: runs {OLD}",
        "c: NOT rolled back: no route to host",
        f"b: left alone: runs {OLD}, which the latest rollout did not deliver",
        "warning: 1 device(s) were left alone; with --limit all every device rolls back",
    ]
    assert {line.device for line in rollout_audit.read_file(root / "farm" / audit_log.FILE)} == {"a", "c"}, (
        "nothing was done to b"
    )


def test_devices_are_called_back_without_records(root: Path, paused: PreflightResult) -> None:
    """A record that cannot be read, and a place where none can be written."""
    (folder(paused) / "state.json").write_text("{")
    told = {"a": ManualRollback(CommandResult(release=OLD), StatusResponse(status(OLD)))}
    nowhere = root.parent / "file"
    nowhere.write_text("")

    for place, words in ((root, "not a rollout's record"), (nowhere, "Not a directory")):
        assert any(words in each for each in begin_manual_rollback("farm", place).warnings)
        ended = finish_manual_rollback("farm", place, told, "alarms")
        assert ended.failed == [] and ended.table[0] == f"a: runs {OLD}"
        assert any("warning: no rollout was abandoned" in row and words in row for row in ended.table)


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
    root: Path, paused: PreflightResult, file: str, changed: Json
) -> None:
    """None: it is not there."""
    path = folder(paused) / file
    left = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({name: value for name, value in left.items() if value is not None or name == "ended"}))

    began = begin_manual_rollback("farm", root)
    ended = finish_manual_rollback(
        "farm", root, {"a": ManualRollback(CommandResult(release=OLD), StatusResponse(status(OLD)))}, "alarms"
    )

    assert began.given_up is None and "no rollout was abandoned" in began.warnings[0]
    assert ended.failed == [] and ended.table[0] == f"a: runs {OLD}"
    assert any("no rollout was abandoned" in row for row in ended.table)


def test_why_devices_were_called_back_is_kept_where_they_are_not_back(root: Path) -> None:
    failed = ManualRollback(None, StatusResponse(None, "no route to host"))

    finish_manual_rollback("farm", root, {"a": failed}, "alarms")

    lines = rollout_audit.read_file(root / "farm" / audit_log.FILE)
    assert [line.detail for line in lines] == ["alarms; no route to host"]
