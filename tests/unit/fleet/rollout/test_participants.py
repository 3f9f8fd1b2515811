"""Who is in which wave, who cannot take the release, and what is refused before any device changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.devices.messages import AgentStatus
from fleet.errors import FleetError
from fleet.inventory.git_commit import inventory_commit
from fleet.records import rollout_folder
from tests.support.fleet.rollouts import NEW, OLD, begin, controller, folder, status


def test_devices_are_in_waves_and_what_they_ran_is_kept(root: Path) -> None:
    begun = begin(root, {"d": status(NEW)})

    assert (begun.go, begun.order, begun.serial) == (True, ["a", "b", "c"], [1, 2])
    state = controller(begun).state
    assert state.devices["a"].was == OLD and not state.devices["a"].touched
    assert state.devices["d"].reason == "runs it already"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (status(device={"type": "pi", "architecture": "x86_64", "memory_bytes": 1, "targets": ["x"]}), "it takes x"),
        (status(disk={"free_bytes": 39}), "of disk free"),
        (status(bad={NEW: "too slow"}), "failed here before: too slow"),
        (status(time="1970-01-01T00:00:00Z"), "its clock shows 1970"),
        (status(service={"running": False, "fault": None, "loaded": None}), "no service runs"),
    ],
)
def test_a_device_that_cannot_take_it_stops_it_or_is_skipped(root: Path, said: AgentStatus, words: str) -> None:
    stopped = begin(root, {"c": said})
    assert (stopped.go, stopped.status) == (False, "refused") and words in stopped.unfit["c"]
    assert rollout_folder.rollouts("farm", root) == [], "nothing has begun"

    skipped = begin(root, {"c": said}, unfit="skip")
    assert skipped.go and skipped.order == ["a", "b", "d"]
    assert controller(skipped).state.devices["c"].outcome == "unfit"


def test_what_breaks_off_while_it_begins_has_not_begun(root: Path) -> None:
    with pytest.raises(FleetError):
        begin(root, changed={"repository": str(root / "gone")})

    assert rollout_folder.rollouts("farm", root) == []
    made = rollout_folder.find("farm", folder(begin(root)).name, root)
    assert (made.folder / rollout_folder.BEFORE).exists()


def test_an_inventory_that_is_not_as_committed_is_said(tmp_path: Path) -> None:
    def git(*command: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(["git", "-C", tmp_path, *who, *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    there = tmp_path / "inventory"
    there.mkdir()
    assert inventory_commit(there) is None
    (there / "hosts.yml").write_text("a: 1\n")
    git("init")
    git("add", ".")
    git("commit", "--message", "x")
    assert inventory_commit(there) == git("rev-parse", "HEAD")
    (tmp_path / "elsewhere").write_text("")
    assert inventory_commit(there / "hosts.yml") == git("rev-parse", "HEAD")
    (there / "hosts.yml").write_text("a: 2\n")
    assert inventory_commit(there / "hosts.yml") == git("rev-parse", "HEAD") + "-dirty"


def test_out_of_reach_within_the_budget_is_left_out_and_a_canary_never(root: Path) -> None:
    assert begin(root, {"d": None}).status == "refused", "10% of four is none"
    assert begin(root, {"a": None}, budget={"unreachable": 4}).status == "refused", "the canary"
    begun = begin(root, {"d": None}, budget={"unreachable": 1})
    assert begun.order == ["a", "b", "c"]
