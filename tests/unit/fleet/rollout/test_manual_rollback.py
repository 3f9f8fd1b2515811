"""fleet.rollout.manual_rollback: which devices a manual rollback concerns, and what it records."""

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


def test_devices_with_the_release_of_the_latest_rollout_roll_back(root: Path) -> None:
    through_canary(begin(root))

    assert begin_manual_rollback("farm", root).brought == [NEW]


def test_a_rollout_that_touched_no_device_is_ignored(root: Path) -> None:
    """The rollout before it counts."""
    started = begin(root)
    through_canary(started)
    controller(started).open_wave(["b", "c", "d"])
    controller(started).judge_wave({name: done() for name in "bcd"}, {})
    controller(started).decide_rollbacks({name: status(NEW) for name in "abcd"})
    controller(started).close({})
    begin(root)

    started = begin_manual_rollback("farm", root)
    assert (started.brought, started.warnings) == ([NEW], [])


def test_a_rollout_that_rolled_back_is_ignored(root: Path) -> None:
    """The release that it replaced may turn out bad later."""
    started = begin(root)
    through_canary(started)
    controller(started).open_wave(["b", "c", "d"])
    controller(started).judge_wave({name: done(OLD) for name in "bcd"}, {})
    controller(started).decide_rollbacks({name: status(NEW) for name in "abcd"})
    ended = controller(started).close({name: StatusResponse(status(OLD)) for name in "abcd"})
    assert ended.status == "failed"

    begun_rollback = begin_manual_rollback("farm", root)

    assert begun_rollback.brought is None
    assert any("every device rolls back" in each for each in begun_rollback.warnings)


def test_a_rollback_of_no_device_counts_as_failed(root: Path) -> None:
    through_canary(begin(root))

    ended = finish_manual_rollback("farm", root, {"a": SKIPPED, "b": SKIPPED}, "alarms")

    assert ended.failed == ["a", "b"]
    assert ended.table[0] == f"a: left unchanged: runs {OLD}, which the latest rollout did not deliver"


def test_without_a_record_every_device_rolls_back(root: Path) -> None:
    begun_rollback = begin_manual_rollback("farm", root)

    assert begun_rollback.brought is None
    assert any("every device rolls back" in each for each in begun_rollback.warnings)
    assert any("every device rolls back" in row for row in finish_manual_rollback("farm", root, {}, "alarms").table)


def test_a_record_that_cannot_be_read_stops_no_rollback(root: Path) -> None:
    started = begin(root)
    through_canary(started)
    (folder(started) / "state.json").write_text("{")

    begun_rollback = begin_manual_rollback("farm", root)

    assert begun_rollback.brought is None
    assert any("every device rolls back" in each for each in begun_rollback.warnings)


def test_idle_refuses_while_a_rollout_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--json", "wave", "idle", "--fleet", "farm", "--rollouts", str(root)]
    control = controller(begin(root))
    assert main.main(arguments) == 0, "its process is this one"
    control.save(replace(control.state, owner=Owner("elsewhere", 1, 1.0)))
    capsys.readouterr()

    assert main.main(arguments) == 7
    assert "process 1 on elsewhere" in capsys.readouterr().out

    (control.record.folder / "state.json").write_text("{")
    assert main.main(arguments) == 0


def test_every_named_device_rolls_back(root: Path) -> None:
    through_canary(begin(root))

    rollout = next((root / "farm").glob("*/plan.json")).parent.name
    assert begin_manual_rollback("farm", root, every=True) == ManualRollbackStart(rollout, None, [])


def test_skipped_devices_are_named_and_silent_devices_have_failed(root: Path) -> None:
    through_canary(begin(root))
    silent = ManualRollback(None, StatusResponse(None, "no route to host"), skipped=True)
    called = ManualRollback(CommandResult(release=OLD), StatusResponse(status(OLD)))

    ended = finish_manual_rollback("farm", root, {"a": called, "b": SKIPPED, "c": silent}, "alarms")

    assert ended.failed == ["c"]
    assert ended.table == [
        f"a: runs {OLD}",
        "c: NOT rolled back: no route to host",
        f"b: left unchanged: runs {OLD}, which the latest rollout did not deliver",
        "warning: 1 device(s) were left unchanged; with --limit all, every device rolls back",
    ]
    assert {line.device for line in rollout_audit.read_file(root / "farm" / audit_log.FILE)} == {"a", "c"}, (
        "nothing was done to b"
    )


def test_devices_roll_back_without_records(root: Path, paused: PreflightResult) -> None:
    """One record cannot be read, and in the other folder no record can be written."""
    (folder(paused) / "state.json").write_text("{")
    rollbacks = {"a": ManualRollback(CommandResult(release=OLD), StatusResponse(status(OLD)))}
    not_a_folder = root.parent / "file"
    not_a_folder.write_text("")

    for place, words in ((root, "not a rollout's record"), (not_a_folder, "Not a directory")):
        assert any(words in each for each in begin_manual_rollback("farm", place).warnings)
        ended = finish_manual_rollback("farm", place, rollbacks, "alarms")
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
def test_devices_roll_back_whatever_is_wrong_with_a_record(
    root: Path, paused: PreflightResult, file: str, changed: Json
) -> None:
    """A value of None removes the field."""
    path = folder(paused) / file
    content = {**json.loads(path.read_text()), **changed}
    path.write_text(
        json.dumps({name: value for name, value in content.items() if value is not None or name == "ended"})
    )

    begun_rollback = begin_manual_rollback("farm", root)
    ended = finish_manual_rollback(
        "farm", root, {"a": ManualRollback(CommandResult(release=OLD), StatusResponse(status(OLD)))}, "alarms"
    )

    assert begun_rollback.given_up is None and "no rollout was abandoned" in begun_rollback.warnings[0]
    assert ended.failed == [] and ended.table[0] == f"a: runs {OLD}"
    assert any("no rollout was abandoned" in row for row in ended.table)


def test_the_reason_of_a_failed_rollback_is_recorded(root: Path) -> None:
    failed = ManualRollback(None, StatusResponse(None, "no route to host"))

    finish_manual_rollback("farm", root, {"a": failed}, "alarms")

    lines = rollout_audit.read_file(root / "farm" / audit_log.FILE)
    assert [line.detail for line in lines] == ["alarms; no route to host"]
