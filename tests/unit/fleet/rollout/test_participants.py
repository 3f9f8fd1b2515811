"""fleet.rollout.participants: the waves of a rollout, unfit devices, and refusals before any device changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.devices.messages import AgentStatus
from fleet.errors import FleetError
from fleet.inventory.git_commit import inventory_commit
from fleet.records import rollout_folder
from tests.support.fleet.rollouts import NEW, OLD, begin, controller, folder, status


def test_devices_are_in_waves_and_their_previous_release_is_recorded(root: Path) -> None:
    started = begin(root, {"d": status(NEW)})

    assert (started.go, started.order, started.serial) == (True, ["a", "b", "c"], [1, 2])
    state = controller(started).state
    assert state.devices["a"].was == OLD and not state.devices["a"].touched
    assert state.devices["d"].reason == "already runs its release"


@pytest.mark.parametrize(
    ("unfit", "words"),
    [
        (
            status(device={"type": "pi", "architecture": "x86_64", "memory_bytes": 1, "targets": ["x"]}),
            "it can run the targets x",
        ),
        (status(disk={"free_bytes": 39}), "of disk space are free"),
        (status(bad={NEW: "too slow"}), "failed on this device before: too slow"),
        (status(time="1970-01-01T00:00:00Z"), "its clock shows 1970"),
        (status(service={"running": False, "fault": None, "loaded": None}), "its service is not running"),
    ],
)
def test_an_unfit_device_stops_the_rollout_or_is_skipped(root: Path, unfit: AgentStatus, words: str) -> None:
    stopped = begin(root, {"c": unfit})
    assert (stopped.go, stopped.status) == (False, "refused") and words in stopped.unfit["c"]
    assert rollout_folder.rollouts("farm", root) == [], "nothing has begun"

    skipped = begin(root, {"c": unfit}, unfit="skip")
    assert skipped.go and skipped.order == ["a", "b", "d"]
    assert controller(skipped).state.devices["c"].outcome == "unfit"


def test_a_rollout_that_fails_while_it_begins_leaves_no_record(root: Path) -> None:
    with pytest.raises(FleetError):
        begin(root, changed={"repository": str(root / "gone")})

    assert rollout_folder.rollouts("farm", root) == []
    record = rollout_folder.find("farm", folder(begin(root)).name, root)
    assert (record.folder / rollout_folder.BEFORE).exists()


def test_the_commit_of_a_changed_inventory_is_marked_dirty(tmp_path: Path) -> None:
    def git(*command: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(["git", "-C", tmp_path, *identity, *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    inventory = tmp_path / "inventory"
    inventory.mkdir()
    assert inventory_commit(inventory) is None
    (inventory / "hosts.yml").write_text("a: 1\n")
    git("init")
    git("add", ".")
    git("commit", "--message", "x")
    assert inventory_commit(inventory) == git("rev-parse", "HEAD")
    (tmp_path / "elsewhere").write_text("")
    assert inventory_commit(inventory / "hosts.yml") == git("rev-parse", "HEAD")
    (inventory / "hosts.yml").write_text("a: 2\n")
    assert inventory_commit(inventory / "hosts.yml") == git("rev-parse", "HEAD") + "-dirty"


def test_unreachable_devices_within_the_budget_are_left_out_but_never_canaries(root: Path) -> None:
    assert begin(root, {"d": None}).status == "refused", "10% of four devices is zero"
    assert begin(root, {"a": None}, budget={"unreachable": 4}).status == "refused", "the canary"
    started = begin(root, {"d": None}, budget={"unreachable": 1})
    assert started.order == ["a", "b", "c"]
