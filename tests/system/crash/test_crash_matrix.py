"""A kill and an error at every fault point there is, on the way of the operations that pass it.

Each case is a device of its own, whose release 1 is confirmed: one operation meets one fault, which must be seen to
have happened; then the device has to be what `survives` says. A run takes a tenth of the cases (see
tests.support.crash_day).
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from edge_agent.core import state
from edge_agent.core.fault_points import POINTS

from tests.support.agent.releases import Releases
from tests.support.crash_day import COUNTED
from tests.system.crash.devices import OLD, ONE, THREE, TWO, QuickDevice, survives
from tests.system.crash.forks import Forks, forks
from tests.system.crash.forks import folder as folder_in_memory

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Operation:
    """A command, the prepared device it is given to, the releases that may be current afterwards, and the families of
    fault points on its way.
    """

    arguments: tuple[str, ...]
    prepared: str
    allowed: frozenset[str]
    points: tuple[str, ...]


def operation(prepared: str, allowed: set[str], *arguments: str, points: tuple[str, ...]) -> Operation:
    return Operation(arguments, prepared, frozenset(allowed), points)


YESTERDAY = datetime.now(UTC) - timedelta(days=1)
DAMAGED = ("damaged", "torn")  # the slot of release 2: installed, or current and on trial
SAVE = ("state.", "link.")
OPERATIONS = {
    "install": operation("confirmed", {ONE}, "install", TWO, points=("trust.", "download.", "install.", "state.")),
    "repair": operation("torn", {ONE, TWO}, "install", TWO, points=("install.",)),
    "reinstall": operation("damaged", {ONE}, "install", TWO, points=("install.",)),
    "activate": operation("installed", {ONE, TWO}, "activate", TWO, points=("selftest.", "activate.", *SAVE)),
    "confirm": operation("trial", {TWO}, "confirm", "--force", points=("confirm.", "state.")),
    "rollback": operation("trial", {ONE, TWO}, "rollback", "--reason", "a test", points=("rollback.", *SAVE)),
    "prune": operation("many", {TWO}, "prune", "--keep", "0", points=("prune.",)),
    "serve": operation("trial", {TWO}, "serve", points=("serve.", "state.")),
}
CASES = [
    (name, point, action)
    for name, each in OPERATIONS.items()
    for point in POINTS
    if point.startswith(each.points) and (point != "install.set_aside" or each.prepared in DAMAGED)
    for action in ("kill", "error")
]
# An error ends an operation with exit code 9 (the disk failed), but for these: a self-test that breaks off has failed,
# and a service goes on without what it could not load until it is told to end.
OTHER_CODES = {
    "selftest.loaded": 5,
    "serve.before_load": 0,
    "serve.after_load": 0,
    "serve.before_swap": 0,
    "serve.after_swap": 0,
}


def test_every_point_is_on_the_way_of_an_operation() -> None:
    assert {point for _, point, _ in CASES} == set(POINTS)


@pytest.fixture(scope="module")
def bench() -> Iterator[tuple[Forks, Releases, Path]]:
    """The process that forks, the releases, and the folder of the prepared devices' states."""
    with ExitStack() as stack:
        folder = stack.enter_context(folder_in_memory())
        fork = stack.enter_context(forks(folder))
        releases = Releases(folder)
        device = QuickDevice(folder / "device", releases, fork)
        stack.callback(device.remove)
        prepare(device, releases, folder)
        yield fork, releases, folder


def prepare(device: QuickDevice, releases: Releases, folder: Path) -> None:
    """From an empty device to one of each kind, a copy of its state at each step."""

    def switch(release: str) -> None:
        device.must("install", release)
        device.must("activate", "--no-selftest", release)

    for release in (OLD, ONE):
        releases.publish(release)
    switch(ONE)
    device.must("confirm", "--force")
    # Metadata was last verified yesterday, and there is newer one since: both are written by the next install.
    state.save(device.config.layout, replace(device.state, trusted_time=state.format_time(YESTERDAY)))
    device.keep(folder / "confirmed")
    for release in (TWO, THREE):
        releases.publish(release)
    device.must("install", TWO)
    device.keep(folder / "installed")
    device.must("activate", "--no-selftest", TWO)
    device.keep(folder / "trial")
    device.must("confirm", "--force")
    device.must("install", OLD)
    device.keep(folder / "many")
    shutil.copytree(folder / "installed", folder / "damaged", symlinks=True)
    shutil.copytree(folder / "trial", folder / "torn", symlinks=True)
    for name in DAMAGED:
        (folder / name / "releases" / TWO / "bundle" / "model_card.md").write_text("another one")


@pytest.mark.parametrize(
    ("name", "point", "action"),
    [pytest.param(*case, marks=pytest.mark.crash_case(number)) for number, case in enumerate(CASES)],
)
def test_the_device_survives(
    bench: tuple[Forks, Releases, Path],
    record_property: pytest.RecordProperty,
    name: str,
    point: str,
    action: str,
) -> None:
    fork, releases, prepared = bench
    each = OPERATIONS[name]
    record_property(COUNTED, 1)
    place = prepared / f"{name}-{point}-{action}"
    device = QuickDevice(place, releases, fork)
    try:
        device.adopt(prepared / each.prepared)
        meet(device, each, f"{point}={action}")
        survives(device, each.allowed, frozenset({TWO}) if each.prepared in DAMAGED else frozenset())
    finally:
        device.remove()
        shutil.rmtree(place)


def meet(device: QuickDevice, each: Operation, fault: str) -> None:
    """Let the operation meet the fault. It must be seen to have happened, and to have been told."""
    point, _, action = fault.partition("=")
    if each.arguments == ("serve",) and (action == "error"):
        code, said = serve_with_error(device, fault)
    else:
        done = device.call(*each.arguments, fault=fault)
        code, said = done.returncode, done.stdout
    told = f"'{point}'"  # an OSError names it; that of a process below is all that is told of it
    assert f"fault: {fault}" in said or told in said, f"{point} was not passed: {code}\n{said}"
    assert "Traceback" not in said, said
    if action == "kill" and point != "selftest.loaded":
        assert code == -signal.SIGKILL, said
    else:
        assert code == OTHER_CODES.get(point, 9), said


def serve_with_error(device: QuickDevice, fault: str) -> tuple[int, str]:
    """A service that meets an error ends with it, or goes on without what it could not load."""
    with device.serving(fault) as served, suppress(TimeoutError):  # it ended
        served.ready()
    return served.process.returncode or 0, served.log
