"""A rollback takes effect on a disk that cannot be written: at the verdict of a trial, and by hand.

The disk is an ext4 file system of 12 MB, which is full or read-only, or the service's writes of state.json fail.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent.cli import ServiceProcess
from tests.support.agent.releases import Releases
from tests.system.crash import disks
from tests.system.crash.devices import ONE, TWO, QuickDevice
from tests.system.crash.forks import Forks, forks
from tests.system.crash.forks import folder as folder_in_memory

pytestmark = pytest.mark.slow
needs_mounts = pytest.mark.skipif(bool(disks.missing()), reason=disks.missing())
SIZE = 12 << 20
ERRORS = {"error": errno.EIO, "nospace": errno.ENOSPC, "quota": errno.EDQUOT, "readonly": errno.EROFS}
ANSWERS = 200
each_error = pytest.mark.parametrize(
    "action",
    ["error", "quota", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("nospace", "readonly"))],
)


@pytest.fixture(scope="module")
def fork() -> Iterator[Forks]:
    with folder_in_memory() as place, forks(place) as running:
        yield running


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as place:
        yield place


@contextlib.contextmanager
def device_in(state_folder: Path, folder: Path, fork: Forks, deadline_s: float) -> Iterator[QuickDevice]:
    """A device with release 1 confirmed and release 2 installed."""
    releases = Releases(folder / "releases")
    releases.publish(ONE)
    releases.publish(TWO)
    device = QuickDevice(state_folder, releases, fork, trial={"deadline_s": deadline_s})
    try:
        device.must("install", ONE)
        device.must("activate", "--no-selftest", ONE)
        device.must("confirm", "--force")
        device.must("install", TWO)
        yield device
    finally:
        device.remove()


@contextlib.contextmanager
def device_on_disk(folder: Path, fork: Forks, deadline_s: float = 900.0) -> Iterator[tuple[disks.Disk, QuickDevice]]:
    """The device's state directory is on a disk of 12 MB."""
    disks.make(folder / "disk.img", SIZE)
    with (
        disks.mounted(folder / "disk.img", folder / "disk", commit_s=300) as disk,
        device_in(disk.mount, folder, fork, deadline_s) as device,
    ):
        yield disk, device


Unwritable = Callable[[disks.Disk, QuickDevice], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def full(disk: disks.Disk, device: QuickDevice) -> Iterator[None]:
    """Fill the disk, and take each block that becomes free, as a program that writes logs does."""
    ending, filled = threading.Event(), threading.Event()

    def fill() -> None:
        with (disk.mount / "filling").open("wb", buffering=0) as stream:
            while not ending.is_set():
                try:
                    stream.write(bytes(4096))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    filled.set()

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        assert filled.wait(30)
        yield
    finally:
        ending.set()
        thread.join()
        (disk.mount / "filling").unlink()


@contextlib.contextmanager
def full_without_reserve(disk: disks.Disk, device: QuickDevice) -> Iterator[None]:
    """The disk is full, and the space that is allocated for state.json is gone."""
    with full(disk, device):
        for path in device.config.layout.state.glob(".state.json*.partial"):
            os.truncate(path, 0)
        with pytest.raises(OSError, match="No space left"):
            (disk.mount / "more").write_bytes(bytes(1 << 20))
        yield


@contextlib.contextmanager
def read_only(disk: disks.Disk, device: QuickDevice) -> Iterator[None]:
    # "Busy" while the service has a file open for writing, which lasts milliseconds.
    script = 'for i in $(seq 100); do mount -o remount,ro "$0" 2>/dev/null && exit; sleep 0.05; done; exit 1'
    subprocess.run(["sh", "-c", script, str(disk.mount)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk.mount)], check=True)


KEPT = {full_without_reserve: "No space left on device", read_only: "Read-only file system"}
unwritable_disks = pytest.mark.parametrize("unwritable", [full, full_without_reserve, read_only])


def output(device: QuickDevice, *arguments: str, fault: str = "") -> dict[str, Any]:
    """Return the JSON that a successful command prints."""
    done = device.call("--json", *arguments, fault=fault)
    assert done.returncode == 0, done.stdout
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value


def check_old_answers(device: QuickDevice) -> None:
    """Check that only release 1 answers, and with its own outputs."""
    assert [device.predict() for _ in range(ANSWERS)] == [ONE] * ANSWERS


def check_status(device: QuickDevice, reason: str | None) -> None:
    status = output(device, "status")
    assert (status["current"], status["trial"], status["service"]["loaded"]["release"]) == (ONE, None, ONE)
    assert TWO in status["bad"]
    assert (status["unwritten"] and status["unwritten"]["reason"]) == reason


def wait_for_verdict(served: ServiceProcess) -> None:
    message = served.wait_for(f"serving {ONE}", "postponed")
    assert ONE in message, served.log


def written(device: QuickDevice) -> tuple[str | None, bool]:
    """Return the release that is current in state.json, and whether it is on trial."""
    on_disk = json.loads(device.config.layout.state_file.read_text())
    return on_disk["current"], on_disk["trial"] is not None


def start_trial(device: QuickDevice, served: ServiceProcess) -> None:
    device.must("activate", "--no-selftest", TWO)
    served.wait_for(f"serving {TWO}")
    assert device.predict() == TWO


def check_reboot(disk: disks.Disk, folder: Path, device: QuickDevice) -> None:
    """Cut the power, and boot from the disk as it was, which cannot be written then."""
    disk.snapshot(folder / "snapshot.img")
    with disks.mounted(folder / "snapshot.img", folder / "boot", commit_s=300) as boot:
        rebooted = QuickDevice(boot.mount, device.releases, device.forks)
        try:
            with full(boot, rebooted), rebooted.serving() as served:
                served.ready()
                check_old_answers(rebooted)
        finally:
            rebooted.remove()


@needs_mounts
@unwritable_disks
def test_the_verdict_of_a_trial(folder: Path, fork: Forks, unwritable: Unwritable) -> None:
    reason = KEPT.get(unwritable)
    with device_on_disk(folder, fork, deadline_s=4.0) as (disk, device), device.serving() as served:
        served.ready()
        start_trial(device, served)
        with unwritable(disk, device):
            assert written(device) == (TWO, True), "the verdict came too early for this test"
            wait_for_verdict(served)
            check_old_answers(device)
            check_status(device, reason)
            assert written(device) == ((ONE, False) if reason is None else (TWO, True))
            if unwritable is full:
                check_reboot(disk, folder, device)
        if reason is not None:
            served.wait_for("was written")
        assert written(device) == (ONE, False)
        check_status(device, None)


@needs_mounts
@unwritable_disks
def test_a_rollback_by_hand(folder: Path, fork: Forks, unwritable: Unwritable) -> None:
    reason = KEPT.get(unwritable)
    with device_on_disk(folder, fork) as (disk, device), device.serving() as served:
        served.ready()
        start_trial(device, served)
        with unwritable(disk, device):
            result = output(device, "rollback", "--reason", "wrong answers")
            assert (result["release"], result["left"], result["service"]["loaded"]["release"]) == (ONE, TWO, ONE)
            assert (result["unwritten"] and result["unwritten"]["reason"]) == reason
            check_old_answers(device)
            check_status(device, reason)
        if reason is not None:
            served.wait_for("was written")
        assert written(device) == (ONE, False)


@needs_mounts
@pytest.mark.parametrize("unwritable", [full_without_reserve, read_only])
def test_a_reboot_although_nothing_could_be_written(folder: Path, fork: Forks, unwritable: Unwritable) -> None:
    """Neither the rollback nor the start of the service is in state.json; release 1 is loaded all the same."""
    with device_on_disk(folder, fork) as (disk, device):
        device.must("activate", "--no-selftest", TWO)
        with unwritable(disk, device):
            for _ in range(2):
                with device.serving() as served:
                    assert ONE in served.wait_for("READY=1")
                    check_old_answers(device)
                    assert written(device) == (TWO, True)
                for path in device.run.iterdir():  # a reboot empties the run folder
                    if path.is_file():
                        path.unlink()


@each_error
def test_the_verdict_of_a_trial_if_each_write_fails(folder: Path, fork: Forks, action: str) -> None:
    fault = f"state.before_fsync={action}#1+"
    with device_in(folder / "device", folder, fork, deadline_s=1.0) as device:
        with device.serving(fault) as served:
            served.ready()
            start_trial(device, served)
            wait_for_verdict(served)
            check_old_answers(device)
            check_status(device, os.strerror(ERRORS[action]))
            assert written(device) == (TWO, True)
        with device.serving() as served:
            assert ONE in served.wait_for("READY=1")
            assert written(device) == (ONE, False)


@each_error
def test_a_rollback_by_hand_if_each_write_fails(folder: Path, fork: Forks, action: str) -> None:
    fault = f"state.before_fsync={action}#1+"
    with device_in(folder / "device", folder, fork, deadline_s=900.0) as device, device.serving(fault) as served:
        served.ready()
        start_trial(device, served)
        result = output(device, "rollback", "--reason", "wrong answers", fault=fault)
        assert result["unwritten"]["reason"] == os.strerror(ERRORS[action])
        check_old_answers(device)
        check_status(device, os.strerror(ERRORS[action]))
