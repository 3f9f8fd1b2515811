"""A rollout's files are whole at any moment, belong to one process, and are taken up when that ended."""

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


def state(of: Owner | None = None, status: Status = "running") -> RolloutState:
    devices = {"a": DeviceState("canary", "digits@1.1.0", "digits@1.0.0")}
    return RolloutState(status, of or owner(), (WaveState("canary", ("a",)),), devices)


def begun(root: Path, of: Owner | None = None, status: Status = "running") -> Record:
    return rollout_folder.begin("farm", PLAN, state(of, status), root)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    made = begun(tmp_path)
    changed = made.load().with_wave("canary", status="pass", verdict=RecordedVerdict.model_validate(VERDICT))
    changed = changed.with_device("a", outcome="ok", reason="half a character: \udc80")

    made.save(changed)

    assert rollout_folder.find("farm", root=tmp_path).load() == changed
    assert made.id.endswith("-01234567")


def test_two_that_begin_in_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    first, second = begun(tmp_path), begun(tmp_path)

    assert first.folder != second.folder
    assert [each.id for each in rollout_folder.rollouts("farm", tmp_path)] == sorted([first.id, second.id])


@pytest.mark.parametrize(
    ("status", "found"),
    [("passed", False), ("failed", False), ("paused", True), ("running", True)],
)
def test_only_what_did_not_end_is_taken_up(tmp_path: Path, status: Status, found: bool) -> None:
    begun(tmp_path, status=status)

    assert (rollout_folder.unfinished("farm", tmp_path) is not None) is found


@pytest.mark.parametrize("status", ["running", "paused"])  # paused, its process may still send devices back
def test_a_rollout_of_a_process_that_runs_is_not_taken(tmp_path: Path, status: Status) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        begun(tmp_path, owner_of(other.pid), status)
        with pytest.raises(BusyError, match=f"process {other.pid}"):
            rollout_folder.unfinished("farm", tmp_path)
        other.kill()

    assert rollout_folder.unfinished("farm", tmp_path) is not None, "it has ended"


def test_a_copy_beside_it_is_no_rollout(tmp_path: Path) -> None:
    made = begun(tmp_path)
    for name in (f"{made.id}.bak", f"old-{made.id}", "99999999T999999Z"):
        shutil.copytree(made.folder, made.folder.with_name(name))

    assert [each.id for each in rollout_folder.rollouts("farm", tmp_path)] == [made.id]


def test_of_another_machine_nothing_is_known(tmp_path: Path) -> None:
    begun(tmp_path, Owner("elsewhere", 1, 0.0))

    with pytest.raises(BusyError, match="elsewhere"):
        rollout_folder.unfinished("farm", tmp_path)


def test_a_folder_without_a_state_was_never_begun(tmp_path: Path) -> None:
    killed, other = tmp_path / "farm" / "20260101T000000Z", tmp_path / "farm" / "notes"
    killed.mkdir(parents=True)
    other.mkdir()

    assert rollout_folder.rollouts("farm", tmp_path) == []
    with pytest.raises(NoReleaseError, match="no rollout"):
        rollout_folder.find("farm", root=tmp_path)
    begun(tmp_path)
    assert (killed.exists(), other.exists()) == (False, True)


def test_one_that_cannot_be_begun_leaves_nothing(tmp_path: Path) -> None:
    def fill(made: Record) -> None:
        assert (made.folder / "plan.json").exists()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        rollout_folder.begin("farm", PLAN, state(), tmp_path, fill)

    assert list((tmp_path / "farm").iterdir()) == []


def test_a_clock_that_was_set_back_hides_none(tmp_path: Path) -> None:
    ahead = begun(tmp_path, status="passed")
    ahead.folder.rename(ahead.folder.with_name("29990101T000000Z-ffffffff"))

    last = begun(tmp_path, status="paused")

    assert last.id == "29990101T000001Z-01234567"
    assert rollout_folder.unfinished("farm", tmp_path) == last


def test_a_plan_that_cannot_be_read_hinders_only_who_needs_it(tmp_path: Path) -> None:
    old, last = begun(tmp_path, status="passed"), begun(tmp_path, status="paused")
    (old.folder / "plan.json").write_text("{")

    assert rollout_folder.unfinished("farm", tmp_path) == last
    with pytest.raises(ConfigurationError, match=r"plan\.json"):
        _ = rollout_folder.find("farm", old.id, tmp_path).plan


def test_the_lock_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    code = "import sys, pathlib; from fleet.records import rollout_folder\n"
    code += "with rollout_folder.locked('farm', pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        other.kill()
    with rollout_folder.locked("farm", tmp_path):
        made = begun(tmp_path)
    assert json.loads((made.folder / "plan.json").read_text())["fleet"] == "farm"
    made.save(replace(made.load(), status="passed"))


def test_records_lie_beside_the_playbooks_wherever_a_command_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = subprocess.run(
        [sys.executable, "-m", "fleet", "audit", "--fleet", "nobody"], capture_output=True, text=True, check=False
    )

    assert f"{REPOSITORY / 'rollouts/nobody'}: no rollouts" in said.stderr
