"""A device whose state is damaged or cannot be written serves what it can read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_agent.core import fault_points, state
from edge_agent.lifecycle import boot, operations

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
    script += "print(boot.boot(config.load(Path(sys.argv[1]))).state.current)"

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
        assert boot.boot(device.config).state.current == OLD


def test_a_service_restores_a_damaged_state_from_the_copy(device: Device) -> None:
    before = device.state
    device.config.layout.state_file.write_bytes(b"\x00" * 300)

    assert boot.boot(device.config).state == device.state == before


FULL = "state.before_fsync=nospace"


def on_trial(device: Device, releases: Releases) -> state.State:
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


def test_on_a_full_disk_the_decision_is_kept_in_memory(
    device: Device, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = on_trial(device, releases)
    monkeypatch.setenv(fault_points.VARIABLE, FULL)
    monkeypatch.setattr(fault_points, "_passed", {})
    booted = boot.boot(device.config)
    assert (booted.state.current, booted.unwritten_state) == (OLD, before)

    monkeypatch.setattr(fault_points, "_passed", {})
    assert (boot.current_state(device.config, booted).current, device.state) == (OLD, before), "still full"
    assert boot.current_state(device.config, booted) == device.state == booted.state
    later = booted.state.switched(NEW, "2030-01-01T00:00:00Z")
    state.save(device.config.layout, later)
    assert boot.current_state(device.config, booted) == later, "a later decision is not overwritten"
