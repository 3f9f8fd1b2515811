"""The smallest of the matrix, in every run of the tests: a good release, a gone canary, a pulled plug."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fleet_faults.conftest import Case
from tests.fleet_faults.fleet import BASE, LabFleet, until
from tests.lab import lab

pytestmark = pytest.mark.slow
LARGE = 8_000_000


@pytest.fixture(scope="module")
def fleet() -> Iterator[LabFleet]:
    """Three devices in waves of 1, 1 and 1."""
    if lacking := lab.missing():
        pytest.skip(lacking)
    with LabFleet(3) as made:
        yield made


def test_good(fleet: LabFleet, case: Case) -> None:
    """No fault: a good release, and again."""
    release = fleet.publish("pump@1.1.0")
    fleet.declare(release)

    done = fleet.rollout()

    case.survived(done, code=0, ends=release, touched=fleet.names, audit=["judge pass", "close passed"])
    again = fleet.rollout()
    assert (again.code, again.changed) == (0, 0), again.output


def test_canary_gone(fleet: LabFleet, case: Case) -> None:
    """The canary cannot be reached once its wave is open."""
    fleet.declare(fleet.publish("pump@1.2.0"))
    fleet.rules(budget={"failed": 3, "unreachable": 3})

    playing = fleet.start("rollout")
    until(lambda: fleet.wave_is(0, "open"), "the canary's wave is open")
    fleet[0].disconnect()
    done = fleet.finish(playing)
    fleet[0].connect()

    audit = ["deploy unreachable device-01", "judge fail", "close failed"]
    case.survived(done, code=2, touched=["device-01"], audit=audit)


def test_plug(fleet: LabFleet, case: Case) -> None:
    """The canary's plug is pulled while it unpacks."""
    release = fleet.publish("pump@1.3.0", padding=LARGE)
    fleet.declare(release)
    canary = fleet[0]
    slot = canary.files / f"var/lib/edge-agent/releases/.{release}.partial/bundle"

    playing = fleet.start("rollout")
    until(slot.is_dir, "it unpacks")
    canary.unplug()
    done = fleet.finish(playing)
    canary.plug()

    case.survived(done, code=2, ends=BASE, touched=["device-01"], audit=["judge fail", "close failed"])
