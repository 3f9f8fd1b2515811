"""A device survives a kill and an error at every fault point, in every operation that passes it.

Each case has a separate device, whose release 1 is confirmed. One fault is injected into one operation and must be seen
to happen; then `check_survival` checks the device. A run tests a tenth of the cases (see tests.support.crash_day).
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
from tests.system.crash.devices import OLD, ONE, THREE, TWO, QuickDevice, check_survival
from tests.system.crash.forks import Forks, forks
from tests.system.crash.forks import folder as folder_in_memory

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Operation:
    """A command, the prepared device that it runs on, the releases that may be current afterwards, and the prefixes of
    the fault points that it passes.
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
    "serve": operation("trial", {ONE, TWO}, "serve", points=("serve.", "state.")),
}
CASES = [
    (name, point, action)
    for name, each in OPERATIONS.items()
    for point in POINTS
    if point.startswith(each.points) and (point != "install.set_aside" or each.prepared in DAMAGED)
    for action in ("kill", "error")
]
# An error ends an operation with exit code 9 (the disk failed), with these exceptions: a self-test that breaks off has
# failed, and a service that could not load a model continues without it until it is stopped.
OTHER_CODES = {
    "selftest.loaded": 5,
    "serve.before_load": 0,
    "serve.after_load": 0,
    "serve.before_swap": 0,
    "serve.after_swap": 0,
}
# These operations succeed without the disk: they keep the return to release 1 in memory until state.json is written.
NEED_NO_DISK = ("rollback", "serve")


def test_every_fault_point_is_passed_by_an_operation() -> None:
    assert {point for _, point, _ in CASES} == set(POINTS)


@pytest.fixture(scope="module")
def bench() -> Iterator[tuple[Forks, Releases, Path]]:
    """The fork server, the releases, and the folder of the prepared devices' states."""
    with ExitStack() as stack:
        folder = stack.enter_context(folder_in_memory())
        fork = stack.enter_context(forks(folder))
        releases = Releases(folder)
        device = QuickDevice(folder / "device", releases, fork)
        stack.callback(device.remove)
        prepare(device, releases, folder)
        yield fork, releases, folder


def prepare(device: QuickDevice, releases: Releases, folder: Path) -> None:
    """Prepare a device step by step and save its state at each step."""

    def switch(release: str) -> None:
        device.must("install", release)
        device.must("activate", "--no-selftest", release)

    for release in (OLD, ONE):
        releases.publish(release)
    switch(ONE)
    device.must("confirm", "--force")
    # Metadata was last verified yesterday and is newer now, so the next install writes metadata and state.
    state.save(device.config.layout, replace(device.state, trusted_time=state.format_time(YESTERDAY)))
    device.save_state(folder / "confirmed")
    for release in (TWO, THREE):
        releases.publish(release)
    device.must("install", TWO)
    device.save_state(folder / "installed")
    device.must("activate", "--no-selftest", TWO)
    device.save_state(folder / "trial")
    device.must("confirm", "--force")
    device.must("install", OLD)
    device.save_state(folder / "many")
    shutil.copytree(folder / "installed", folder / "damaged", symlinks=True)
    shutil.copytree(folder / "trial", folder / "torn", symlinks=True)
    for name in DAMAGED:
        (folder / name / "releases" / TWO / "bundle" / "model_card.md").write_text("another one")


@pytest.mark.parametrize(
    ("name", "point", "action"),
    [pytest.param(*case, marks=pytest.mark.crash_case(number)) for number, case in enumerate(CASES)],
)
def test_the_device_survives_a_fault(
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
        device.adopt_state(prepared / each.prepared)
        code = 0 if name in NEED_NO_DISK and point.startswith(SAVE) else OTHER_CODES.get(point, 9)
        run_with_fault(device, each, f"{point}={action}", code)
        check_survival(device, each.allowed, frozenset({TWO}) if each.prepared in DAMAGED else frozenset())
    finally:
        device.remove()
        shutil.rmtree(place)


def run_with_fault(device: QuickDevice, each: Operation, fault: str, expected_code: int) -> None:
    """Run the operation with the fault, and check that the fault happened and was reported.

    `expected_code` is the exit code after an error.
    """
    point, _, action = fault.partition("=")
    if each.arguments == ("serve",) and (action == "error"):
        code, output = serve_with_error(device, fault)
    else:
        done = device.call(*each.arguments, fault=fault)
        code, output = done.returncode, done.stdout
    named = f"'{point}'"  # an OSError names the point; of a child process's error, only this is reported
    assert f"fault: {fault}" in output or named in output, f"{point} was not passed: {code}\n{output}"
    assert "Traceback" not in output, output
    if action == "kill" and point != "selftest.loaded":
        assert code == -signal.SIGKILL, output
    else:
        assert code == expected_code, output


def serve_with_error(device: QuickDevice, fault: str) -> tuple[int, str]:
    """Run a service with an error. It ends, or continues without the model that it could not load."""
    with device.serving(fault) as served, suppress(TimeoutError):  # the service ended
        served.ready()
    return served.process.returncode or 0, served.log
