"""A state that cannot be written, or is damaged: what can be read is served."""

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
    made = Releases(tmp_path)
    made.publish(OLD)
    return made


@pytest.fixture
def device(tmp_path: Path, releases: Releases) -> Iterator[Device]:
    with confirmed_device(tmp_path, releases) as device:
        yield device


def read_only(device: Device, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` where the state directory is mounted read-only, in a mount namespace of its own."""
    folder = str(device.config.layout.state)
    return subprocess.run(
        ["unshare", "-rm", "bash", "-ec", READ_ONLY, "bash", folder, *command], capture_output=True, text=True
    )


def test_a_read_only_state_boots_and_is_verified(device: Device) -> None:
    (device.config.layout.releases / ".pump@1.1.0.partial").mkdir()  # cannot be dropped either
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
        told = read_only(device, *device.command("--json", "forget", OLD))

    assert json.loads(told.stdout)["error"] == "BusyError", told.stderr


def test_a_lock_that_is_held_keeps_no_confirmed_release_from_starting(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "LOCK_S", 0.0)
    with state.locked(device.config.layout):
        assert boot.boot(device.config).state.current == OLD


def test_a_service_that_finds_its_state_damaged_takes_the_copy(device: Device) -> None:
    before = device.known
    device.config.layout.state_file.write_bytes(b"\x00" * 300)

    assert boot.boot(device.config).state == device.known == before


FULL = "state.before_fsync=nospace"


def on_trial(device: Device, releases: Releases) -> state.State:
    """`NEW` becomes current, on trial."""
    releases.publish(NEW)
    operations.deploy(device.config, NEW, selftest=False)
    return device.known


def test_a_trial_whose_start_cannot_be_counted_is_left(device: Device, releases: Releases) -> None:
    """Else a release that crashes would be started for ever. What was decided is written once there is space."""
    on_trial(device, releases)
    with device.serving(fault=FULL) as served:
        assert OLD in served.hears("READY=1")
        assert "its start cannot be counted" in served.log
    known = device.known
    assert (known.current, known.previous, known.trial, dict(known.bad)) == (OLD, None, None, {})


def test_on_a_full_disk_what_was_decided_stands_in_memory(
    device: Device, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = on_trial(device, releases)
    monkeypatch.setenv(fault_points.VARIABLE, FULL)
    monkeypatch.setattr(fault_points, "_passed", {})
    booted = boot.boot(device.config)
    assert (booted.state.current, booted.unwritten_state) == (OLD, before)

    monkeypatch.setattr(fault_points, "_passed", {})
    assert (boot.current_state(device.config, booted).current, device.known) == (OLD, before), "still full"
    assert boot.current_state(device.config, booted) == device.known == booted.state
    later = booted.state.switched(NEW, "2030-01-01T00:00:00Z")
    state.save(device.config.layout, later)
    assert boot.current_state(device.config, booted) == later, "what is decided later counts"
