"""A device whose state is damaged or cannot be written serves what it can read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edge_agent.cli import text
from edge_agent.core import fault_points, state
from edge_agent.core.agent_state import State
from edge_agent.lifecycle import boot, operations, switching
from edge_agent.lifecycle.status import status

from tests.support.agent.cli import Device
from tests.support.agent.releases import NEW, OLD, Releases, confirmed_device

READ_ONLY = """
state=$1; shift
mount --bind "$state" "$state"
mount -o remount,ro,bind "$state"
! touch "$state/x" 2>/dev/null
"$@"
"""


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    releases = Releases(tmp_path)
    releases.publish(OLD)
    return releases


@pytest.fixture
def device(tmp_path: Path, releases: Releases) -> Iterator[Device]:
    with confirmed_device(tmp_path, releases) as device:
        yield device


def read_only(device: Device, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in a mount namespace in which the state directory is read-only."""
    folder = str(device.config.layout.state)
    return subprocess.run(
        ["unshare", "-rm", "bash", "-ec", READ_ONLY, "bash", folder, *command], capture_output=True, text=True
    )


def test_a_read_only_state_boots_and_is_verified(device: Device) -> None:
    (device.config.layout.releases / ".pump@1.1.0.partial").mkdir()  # cannot be removed either
    script = "import sys; from pathlib import Path; "
    script += "from edge_agent.core import config; from edge_agent.lifecycle import boot; "
    script += "print(boot.boot(config.load(Path(sys.argv[1]))).current)"

    booted = read_only(device, sys.executable, "-c", script, str(device.file))
    assert (booted.returncode, booted.stdout) == (0, f"{OLD}\n"), booted.stderr
    assert "Read-only file system" in booted.stderr

    verified = read_only(device, *device.command("--json", "verify"))
    assert [slot["whole"] for slot in json.loads(verified.stdout)["slots"]] == [True], verified.stderr


@pytest.mark.slow
def test_a_read_only_state_is_locked_all_the_same(device: Device) -> None:
    with state.locked(device.config.layout):
        result = read_only(device, *device.command("--json", "forget", OLD))

    assert json.loads(result.stdout)["error"] == "BusyError", result.stderr


def test_a_held_lock_does_not_prevent_the_start_of_a_confirmed_release(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "LOCK_S", 0.0)
    with state.locked(device.config.layout):
        assert boot.boot(device.config).current == OLD


def test_a_service_restores_a_damaged_state_from_the_copy(device: Device) -> None:
    before = device.state
    device.config.layout.state_file.write_bytes(b"\x00" * 300)

    assert boot.boot(device.config) == device.state == before


FULL = "state.before_fsync=nospace"


def on_trial(device: Device, releases: Releases) -> State:
    """`NEW` becomes current, on trial."""
    releases.publish(NEW)
    operations.deploy(device.config, NEW, selftest=False)
    return device.state


def test_a_trial_whose_start_cannot_be_counted_is_rolled_back(device: Device, releases: Releases) -> None:
    """A release that crashes would otherwise be started for ever. The decision is written once there is space."""
    on_trial(device, releases)
    with device.serving(fault=FULL) as served:
        assert OLD in served.wait_for("READY=1")
        assert "its start cannot be counted" in served.log
    known_state = device.state
    assert (known_state.current, known_state.previous, known_state.trial, dict(known_state.bad)) == (
        OLD,
        None,
        None,
        {},
    )


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make every write of state.json by this process fail from now on, with one of the actions of a fault point."""

    def set_fault(action: str) -> None:
        monkeypatch.setattr(fault_points, "_passed", {})
        monkeypatch.setenv(fault_points.VARIABLE, f"state.before_write={action}#1+")

    return set_fault


@pytest.mark.parametrize("action", fault_points.ERRORS)
@pytest.mark.parametrize("run_folder", ["writable", "missing"])
def test_a_reboot_during_a_trial_leads_to_the_old_release_if_nothing_can_be_written(
    device: Device,
    releases: Releases,
    fail: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    run_folder: str,
) -> None:
    before = on_trial(device, releases)
    if run_folder == "missing":  # and it cannot be created either
        shutil.rmtree(device.run)
        device.run.write_text("in the way")
    fail(action)

    for _ in range(3):
        assert boot.boot(device.config).current == OLD
        assert not state.settle(device.config.layout)
        assert (device.state.current, device.state.trial) == (OLD, None)
        assert state.load_written(device.config.layout) == before

    monkeypatch.delenv(fault_points.VARIABLE)
    assert state.settle(device.config.layout)
    assert state.load_written(device.config.layout) == device.state == before.rolled_back(None)
    assert state.kept(device.config.layout) is None


def test_a_newer_state_is_not_replaced_by_a_kept_state(
    device: Device, releases: Releases, fail: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_trial(device, releases)
    fail("nospace")
    boot.boot(device.config)
    kept = device.config.layout.kept_state.read_text()
    monkeypatch.delenv(fault_points.VARIABLE)
    later = device.state.switched(NEW, "2030-01-01T00:00:00Z")
    state.save(device.config.layout, later)
    device.config.layout.kept_state.write_text(kept)

    assert not state.settle(device.config.layout)
    assert device.state == later


@pytest.mark.parametrize(("starts", "outcome"), [(0, f"loads {OLD}; but if"), (3, f"loads {OLD}")])
@pytest.mark.parametrize("action", fault_points.ERRORS)
def test_a_rollback_by_hand_is_in_effect_although_it_cannot_be_written(
    device: Device, releases: Releases, fail: Callable[[str], None], action: str, starts: int, outcome: str
) -> None:
    trial = on_trial(device, releases)
    for _ in range(starts):
        trial = trial.started()
    state.save(device.config.layout, trial)
    fail(action)

    result = switching.rollback(device.config, reason="wrong answers")

    assert (result.release, result.changed, result.trial) == (OLD, True, False)
    assert result.unwritten is not None and result.unwritten.reason == os.strerror(fault_points.ERRORS[action])
    assert result.unwritten.after_reboot.startswith(f"a reboot {outcome}")
    assert "NOT YET WRITTEN TO THE DISK" in text.render(result)
    shown = status(device.config)
    assert (shown.current, shown.trial, shown.bad, shown.unwritten) == (
        OLD,
        None,
        {NEW: "wrong answers"},
        result.unwritten,
    )
    assert "not written" in text.render(shown)
    device.config.layout.kept_state.unlink()  # a reboot
    assert boot.boot(device.config).current == OLD


def test_a_reboot_undoes_an_unwritten_rollback_of_a_confirmed_release(
    device: Device, releases: Releases, fail: Callable[[str], None]
) -> None:
    state.save(device.config.layout, on_trial(device, releases).confirmed())
    fail("readonly")

    result = switching.rollback(device.config)

    assert result.unwritten is not None and result.unwritten.after_reboot == f"a reboot returns to {NEW}"
    assert boot.boot(device.config).current == OLD, "a restart of the service is not a reboot"
    device.config.layout.kept_state.unlink()
    assert boot.boot(device.config).current == NEW


def test_commands_use_a_rollback_that_is_not_written_yet(
    device: Device, releases: Releases, fail: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removing unused slots, to free disk space, must not remove the release that serves requests."""
    state.save(device.config.layout, on_trial(device, releases).confirmed())
    other = "pump@1.2.0"
    releases.publish(other)
    operations.deploy(device.config, other, selftest=False)
    operations.confirm(device.config, force=True)
    fail("nospace")
    switching.rollback(device.config, to=OLD)
    monkeypatch.delenv(fault_points.VARIABLE)

    assert OLD in operations.prune(device.config, keep=0).installed


def test_a_rollback_that_can_be_neither_written_nor_kept_is_an_error(
    device: Device, releases: Releases, fail: Callable[[str], None]
) -> None:
    before = on_trial(device, releases)
    shutil.rmtree(device.run)
    device.run.write_text("in the way")
    fail("error")

    with pytest.raises(OSError, match=r"state\.before_write"):
        switching.rollback(device.config)

    assert device.state == before
