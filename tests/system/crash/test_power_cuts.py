"""After a power cut at any moment of an install, a switch, a rollback or a removal, a device boots to a verified model.

It also has everything that it had reported as done, and can install the next release. tests.system.crash.disks
describes what is simulated.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from edge_agent.core import state
from edge_agent.storage import slots

from tests.support.agent.cli import WAIT_S, environment_with
from tests.support.agent.releases import Releases
from tests.support.crash_day import COUNTED, includes, part_of_day
from tests.system.crash import disks
from tests.system.crash.devices import ONE, THREE, TWO, QuickDevice
from tests.system.crash.forks import FLUSHES, Forks, Process, forks
from tests.system.crash.forks import folder as folder_in_memory

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(disks.missing()), reason=disks.missing())]

CUTS = 105
QUICK = ("activate", "--no-selftest", TWO)
# Each round ends as it began, with only release 1, which is current. Beside each command: the current release after it.
ROUND: tuple[tuple[tuple[str, ...], str], ...] = (
    (("install", TWO), ONE),
    (QUICK, TWO),
    (("rollback",), ONE),
    (("prune", "--keep", "0"), ONE),
    (("install", TWO), ONE),
    (QUICK, TWO),
    (("confirm", "--force"), TWO),
    (("rollback",), ONE),
    (("prune", "--keep", "0"), ONE),
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as place:
        yield place


@contextlib.contextmanager
def disk_with_one(folder: Path, commit_s: int, **environment: str) -> Iterator[tuple[disks.Disk, QuickDevice]]:
    """Create a device whose state is on a separate disk, with release 1 confirmed and flushed.

    A fork server with `environment` runs its commands.
    """
    releases = Releases(folder / "releases")
    for release in (ONE, TWO, THREE):
        releases.publish(release)
    disks.make(folder / "disk.img")
    with (
        forks(folder, **environment) as fork,
        disks.mounted(folder / "disk.img", folder / "disk", commit_s) as disk,
        contextlib.ExitStack() as stack,
    ):
        device = QuickDevice(disk.mount, releases, fork)
        stack.callback(device.remove)
        device.must("install", ONE)
        device.must("activate", "--no-selftest", ONE)
        device.must("confirm", "--force")
        os.sync()
        yield disk, device


@dataclass
class Writer:
    """Runs rounds of commands in a thread. `allowed`: releases that may be current on the disk now; `kept`: releases
    that must be installed.
    """

    device: QuickDevice
    allowed: frozenset[str] = frozenset({ONE})
    kept: frozenset[str] = frozenset({ONE})
    command: str = ""
    failed: str = ""
    _running: Process | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ending: threading.Event = field(default_factory=threading.Event)

    def run_rounds(self) -> None:
        log = self.device.run / "writer.log"
        while not self._ending.is_set() and not self.failed:
            for arguments, current in ROUND:
                with self._lock:
                    self.command = " ".join(arguments)
                    self.allowed |= {current}
                    self.kept -= {TWO} if arguments[0] == "prune" else set()
                    self._running = self.device.start(list(arguments), environment_with(""), log)
                code = self._running.wait(WAIT_S)
                with self._lock:
                    self._running = None
                    if code:
                        self.failed = f"{self.command}: {code}\n{log.read_text()}"
                        return
                    self.allowed = frozenset({current})
                    self.kept |= {TWO} if arguments[0] == "install" else set()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the running command where it is. No command ends or begins in the block."""
        with self._lock:
            process = self._running
            if process:
                process.send_signal(signal.SIGSTOP)
            try:
                yield
            finally:
                if process:
                    process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run_rounds)
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            thread.join()
        assert not self.failed, self.failed


@dataclass(frozen=True)
class Snapshot:
    image: Path
    allowed: frozenset[str]
    kept: frozenset[str]


def boot_and_check(snapshot: Snapshot, folder: Path, releases: Releases, fork: Forks) -> str:
    """Mount a snapshot, as a boot does, check the device on it and return the release that it booted to."""
    with disks.mounted(snapshot.image, folder / "boot", commit_s=300) as disk:
        device = QuickDevice(disk.mount, releases, fork)
        try:
            layout = device.config.layout
            device.must("--json", "status")
            installed = slots.installed(layout)
            for release in installed:
                slots.verify(layout, release)
            assert snapshot.kept <= set(installed), (
                f"installed: {installed}; reported as installed: {set(snapshot.kept)}"
            )
            current = state.load(layout).current
            assert current in snapshot.allowed, f"{current} is current; it may be {set(snapshot.allowed)}"
            with device.serving() as served:
                served.ready()
                booted = device.predict()
                assert booted == current
                device.must("install", THREE)
            slots.verify(layout, THREE)
            return booted
        finally:
            device.remove()


@pytest.mark.parametrize("commit_s", [1, 300])
def test_the_device_survives_power_cuts(folder: Path, record_property: pytest.RecordProperty, commit_s: int) -> None:
    """`commit_s` is the interval in which the kernel writes the journal.

    A run makes a tenth of the cuts, and more if all of them booted to the same one of the two releases.
    """
    part = part_of_day()
    least = sum(includes(part, number) for number in range(CUTS))
    booted: list[str] = []
    chance = random.Random(commit_s if part is None else f"{commit_s} {part}")  # noqa: S311  (not a secret)
    image = folder / "snapshot.img"
    with disk_with_one(folder, commit_s) as (disk, device):
        writer = Writer(device)
        with writer.running():
            while len(booted) < least or (set(booted) != {ONE, TWO} and len(booted) < CUTS):
                # Not a wait for an event: the moment of a cut must be arbitrary.
                time.sleep(chance.uniform(0, 0.15))
                with writer.paused():
                    assert not writer.failed, writer.failed
                    disk.snapshot(image)
                    snapshot = Snapshot(image, writer.allowed, writer.kept)
                    try:
                        booted.append(boot_and_check(snapshot, folder, device.releases, device.forks))
                    except Exception as error:
                        record_property(COUNTED, len(booted) + 1)
                        raise AssertionError(f"cut {len(booted)}, {writer.command}: {error}") from error
    record_property(COUNTED, len(booted))
    assert set(booted) == {ONE, TWO}, "the moments were not spread over the operations"


@pytest.mark.parametrize("flushed", ["everything", "directories", "nothing"])
def test_the_check_fails_for_an_agent_that_does_not_flush(folder: Path, flushed: str) -> None:
    """Check a device right after successful commands of agents that flush everything, only directories, or nothing."""
    (folder / "boots").mkdir()
    with disk_with_one(folder, 300, **{FLUSHES: flushed}) as (disk, device), forks(folder / "boots") as fork:
        device.must("install", TWO)
        device.must("activate", "--no-selftest", TWO)
        snapshot = Snapshot(folder / "snapshot.img", frozenset({TWO}), frozenset({ONE, TWO}))
        disk.snapshot(snapshot.image)
        if flushed == "everything":
            assert boot_and_check(snapshot, folder, device.releases, fork) == TWO
        else:
            with pytest.raises(Exception, match=r"damaged|not a state|may be|reported as installed"):
                boot_and_check(snapshot, folder, device.releases, fork)
