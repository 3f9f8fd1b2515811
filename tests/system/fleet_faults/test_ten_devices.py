"""Ten devices: a good release in three waves, a revert in git, and the time that rollbacks take."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import lab
from tests.system.fleet_faults.conftest import Case
from tests.system.fleet_faults.fleet import BASE, LabFleet
from tests.system.fleet_faults.test_wave_faults import inject_agent_fault

pytestmark = [pytest.mark.slow, pytest.mark.fleet, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[LabFleet]:
    """Ten devices in waves of 1, 3 and 6."""
    if lacking := lab.missing():
        pytest.skip(lacking)
    with LabFleet(10) as lab_fleet:
        lab_fleet.commit("the first release")
        yield lab_fleet


def test_a_good_release_is_rolled_out_and_reverted_by_git(fleet: LabFleet, case: Case) -> None:
    """No fault: a good release, rolled out twice, and `git revert`."""
    release = fleet.publish("pump@4.0.0")
    fleet.commit("as it was")
    fleet.declare(release)
    fleet.commit("the next release")

    done = fleet.rollout()
    assert [len(wave["devices"]) for wave in fleet.record()["waves"]] == [1, 3, 6]
    case.survived(done, code=0, ends=release, touched=fleet.names, audit=["judge pass", "close passed"])

    states = fleet.states()
    again = fleet.rollout()
    assert (again.code, again.changed) == (0, 0), again.output
    assert fleet.states() == states

    fleet.revert()
    reverted = fleet.rollout()
    assert reverted.code == 0, reverted.output
    fleet.wait_settled(dict.fromkeys(fleet.names, BASE))
    assert all(device["outcome"] == "ok" for device in fleet.record()["devices"].values())


def test_all_ten_devices_are_rolled_back_after_a_late_failure(fleet: LabFleet, case: Case) -> None:
    """The last of ten devices has a worn card: all ten are rolled back."""
    fleet.declare(fleet.publish("pump@4.1.0"))
    inject_agent_fault(fleet, fleet[9], "install.before_rename=error")

    done = fleet.rollout()

    case.survived(done, code=2, touched=fleet.names, audit=["judge pass", "judge fail", "close failed"])
    lines = fleet.audit()
    rollbacks = [line for line in lines if (line["action"], line["result"]) == ("back", "back")]
    assert len(rollbacks) == 10 or {line["device"] for line in rollbacks} == set(fleet.names[:9]), lines


def test_ten_devices_are_rolled_back_manually(fleet: LabFleet, case: Case) -> None:
    """Ten devices are rolled back manually (rollback.yml)."""
    release = fleet.publish("pump@4.2.0")
    fleet.declare(release)
    assert fleet.rollout().code == 0

    one = fleet.play("rollback", "--limit", "device-05", reason="one alone")
    assert one.code == 0, one.output
    done = fleet.play("rollback", reason="alarms at night", release_to=BASE)

    case.survived(done, code=0, touched=fleet.names)
    case.row["what"] += f": one within {one.seconds:.0f} s, all within {done.seconds:.0f} s, with Ansible's start"
