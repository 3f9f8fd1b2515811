"""The files of a rollout are complete at any moment, belong to one process, and are resumed after it has ended."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.errors import BusyError, ConfigurationError, NoReleaseError
from fleet.records import rollout_folder
from fleet.records.rollout_folder import Record
from fleet.records.state import DeviceState, Owner, RecordedVerdict, RolloutState, Status, WaveState, owner, owner_of
from tests.support.fleet.rollouts import plan
from tests.support.paths import REPOSITORY

PLAN = {**plan(), "commit": "0123456789abcdef"}
VERDICT = {
    "status": "pass",
    "reason": "",
    "checks": [{"name": "bake", "status": "pass", "reason": "\udc80", "devices": []}],
}


def state(process: Owner | None = None, status: Status = "running") -> RolloutState:
    devices = {"a": DeviceState("canary", "digits@1.1.0", "digits@1.0.0")}
    return RolloutState(status, process or owner(), (WaveState("canary", ("a",)),), devices)


def begin_rollout(root: Path, process: Owner | None = None, status: Status = "running") -> Record:
    return rollout_folder.begin("farm", PLAN, state(process, status), root)


def test_a_saved_state_is_loaded_unchanged(tmp_path: Path) -> None:
    record = begin_rollout(tmp_path)
    changed = record.load().with_wave("canary", status="pass", verdict=RecordedVerdict.model_validate(VERDICT))
    changed = changed.with_device("a", outcome="ok", reason="half a character: \udc80")

    record.save(changed)

    assert rollout_folder.find("farm", root=tmp_path).load() == changed
    assert record.id.endswith("-01234567")


def test_two_rollouts_of_one_second_have_separate_folders(tmp_path: Path) -> None:
    first, second = begin_rollout(tmp_path), begin_rollout(tmp_path)

    assert first.folder != second.folder
    assert [each.id for each in rollout_folder.rollouts("farm", tmp_path)] == sorted([first.id, second.id])


@pytest.mark.parametrize(
    ("status", "is_unfinished"),
    [("passed", False), ("failed", False), ("paused", True), ("running", True)],
)
def test_only_an_unfinished_rollout_is_resumed(tmp_path: Path, status: Status, is_unfinished: bool) -> None:
    begin_rollout(tmp_path, status=status)

    assert (rollout_folder.unfinished("farm", tmp_path) is not None) is is_unfinished


@pytest.mark.parametrize("status", ["running", "paused"])  # the process of a paused rollout may still roll devices back
def test_a_rollout_whose_process_runs_is_not_resumed(tmp_path: Path, status: Status) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        begin_rollout(tmp_path, owner_of(other.pid), status)
        with pytest.raises(BusyError, match=f"process {other.pid}"):
            rollout_folder.unfinished("farm", tmp_path)
        other.kill()

    assert rollout_folder.unfinished("farm", tmp_path) is not None, "it has ended"


def test_a_copy_of_a_folder_is_not_a_rollout(tmp_path: Path) -> None:
    record = begin_rollout(tmp_path)
    for name in (f"{record.id}.bak", f"old-{record.id}", "99999999T999999Z"):
        shutil.copytree(record.folder, record.folder.with_name(name))

    assert [each.id for each in rollout_folder.rollouts("farm", tmp_path)] == [record.id]


def test_a_process_on_another_machine_counts_as_running(tmp_path: Path) -> None:
    begin_rollout(tmp_path, Owner("elsewhere", 1, 0.0))

    with pytest.raises(BusyError, match="elsewhere"):
        rollout_folder.unfinished("farm", tmp_path)


def test_a_folder_without_a_state_is_removed(tmp_path: Path) -> None:
    killed, other = tmp_path / "farm" / "20260101T000000Z", tmp_path / "farm" / "notes"
    killed.mkdir(parents=True)
    other.mkdir()

    assert rollout_folder.rollouts("farm", tmp_path) == []
    with pytest.raises(NoReleaseError, match="no rollout"):
        rollout_folder.find("farm", root=tmp_path)
    begin_rollout(tmp_path)
    assert (killed.exists(), other.exists()) == (False, True)


def test_a_rollout_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    def fill(record: Record) -> None:
        assert (record.folder / "plan.json").exists()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        rollout_folder.begin("farm", PLAN, state(), tmp_path, fill)

    assert list((tmp_path / "farm").iterdir()) == []


def test_a_clock_that_was_set_back_hides_no_rollout(tmp_path: Path) -> None:
    ahead = begin_rollout(tmp_path, status="passed")
    ahead.folder.rename(ahead.folder.with_name("29990101T000000Z-ffffffff"))

    last = begin_rollout(tmp_path, status="paused")

    assert last.id == "29990101T000001Z-01234567"
    assert rollout_folder.unfinished("farm", tmp_path) == last


def test_an_unreadable_plan_fails_only_where_it_is_needed(tmp_path: Path) -> None:
    old, last = begin_rollout(tmp_path, status="passed"), begin_rollout(tmp_path, status="paused")
    (old.folder / "plan.json").write_text("{")

    assert rollout_folder.unfinished("farm", tmp_path) == last
    with pytest.raises(ConfigurationError, match=r"plan\.json"):
        _ = rollout_folder.find("farm", old.id, tmp_path).plan


def test_the_lock_is_free_after_its_holder_was_killed(tmp_path: Path) -> None:
    code = "import sys, pathlib; from fleet.records import rollout_folder\n"
    code += "with rollout_folder.locked('farm', pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        other.kill()
    with rollout_folder.locked("farm", tmp_path):
        record = begin_rollout(tmp_path)
    assert json.loads((record.folder / "plan.json").read_text())["fleet"] == "farm"
    record.save(replace(record.load(), status="passed"))


def test_records_are_beside_the_playbooks_in_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = subprocess.run(
        [sys.executable, "-m", "fleet", "audit", "--fleet", "nobody"], capture_output=True, text=True, check=False
    )

    assert f"{REPOSITORY / 'rollouts/nobody'}: no rollouts are recorded" in printed.stderr
