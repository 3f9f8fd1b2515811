"""Faults that are detected before any device changes, and releases that a device refuses."""

from __future__ import annotations

import pytest

from fleet.releases import catalog
from fleet.releases.catalog import target_path
from fleet.releases.keys import Keys
from fleet.releases.repository import Repository
from tests.support.agent.bundles import CRASHING, GARBAGE, GREEDY, SLOW
from tests.system.fleet_faults.conftest import Case
from tests.system.fleet_faults.fleet import BASE, JUDGE, LabFleet

pytestmark = [pytest.mark.slow, pytest.mark.fleet, pytest.mark.timeout(1800)]


def test_a_withdrawn_release_is_refused(fleet: LabFleet, case: Case) -> None:
    """A release that is withdrawn."""
    release = fleet.publish("pump@2.0.0")
    catalog.withdrawals(fleet.repository)[release] = {"reason": "recalled"}
    del fleet.repository.targets.targets["pump/2.0.0/pump.tar.zst"]
    fleet.repository.write("targets", "snapshot", "timestamp")
    fleet.declare(release)

    case.survived(fleet.rollout(), code=2, message="withdrawn: recalled")


def test_a_release_for_another_device_type_is_refused(fleet: LabFleet, case: Case) -> None:
    """A release for another type of device."""
    fleet.declare(fleet.publish("pump@2.1.0", requirements={"device_types": ["raspberry-pi-4"]}))

    case.survived(fleet.rollout(), code=2, message="type generic: pump@2.1.0 is for raspberry-pi-4")


def test_a_canary_that_is_off_stops_the_rollout(fleet: LabFleet, case: Case) -> None:
    """The canary is off when the rollout begins."""
    fleet.declare(fleet.publish("pump@2.2.0"))
    fleet.set_policy(budget={"failed": 0, "unreachable": 2})
    fleet[0].unplug()

    done = fleet.rollout()
    fleet[0].plug()

    case.survived(done, code=2, message="device-01 of the first wave cannot be updated")


def test_an_archive_that_differs_from_its_signature_is_refused(fleet: LabFleet, case: Case) -> None:
    """An archive that differs from the signed one."""
    release = fleet.publish("pump@2.3.0", padding=1000)
    target = fleet.repository.targets.targets["pump/2.3.0/pump.tar.zst"]
    file = fleet.repository.local_file(target)
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    fleet.declare(release)

    done = fleet.rollout()

    case.survived(done, code=2, touched=["device-01"] if "wave wave-0" in done.output else [])


def test_a_repository_signed_with_other_keys_is_refused(fleet: LabFleet, case: Case) -> None:
    """A repository signed with other keys, including its root, under the same names."""
    release = fleet.publish("pump@2.6.0")
    other = Repository.create(fleet.base / "other", Keys(fleet.base / "other-keys"), development=True)
    for release_name in (BASE, release):
        name, _, version = release_name.partition("@")
        (archive,) = (fleet.base / "bundles" / version).glob("*.tar.zst")
        other.add(target_path(name, version), archive, {"version": version})
    other.write("targets", "snapshot", "timestamp")
    fleet.declare(release)

    done = fleet.rollout(rollout_repository=str(fleet.base / "other"))

    audit = ["open go", "deploy failed device-01", "judge fail", "close failed"]
    case.survived(done, code=2, touched=["device-01"], audit=audit)


@pytest.mark.parametrize("fault", [GARBAGE, CRASHING, "wrong golden sample"])
def test_a_model_that_fails_its_self_test_does_not_pass_the_canary(fleet: LabFleet, case: Case, fault: str) -> None:
    """A model that the self-test refuses."""
    index = [GARBAGE, CRASHING, "wrong golden sample"].index(fault)
    faults: dict[str, object] = {"fault": fault, "targets": ("tflite-int8",)} if fault == CRASHING else {"fault": fault}
    if index == 2:
        faults = {"wrong_golden": True}
    fleet.declare(fleet.publish(f"pump@2.4.{index}", **faults))

    done = fleet.rollout()

    audit = ["open go", "deploy failed device-01", "judge fail", "close failed"]
    case.survived(done, code=2, touched=["device-01"], audit=audit)


@pytest.mark.parametrize("fault", ["wrong", SLOW, GREEDY])
def test_a_worse_model_is_rolled_back_from_the_canary(fleet: LabFleet, case: Case, fault: str) -> None:
    """A model that passes its self-test and performs worse."""
    index = ["wrong", SLOW, GREEDY].index(fault)
    faults: dict[str, object] = {"seed": 7, "variant": 0} if fault == "wrong" else {"fault": fault}
    fleet.declare(fleet.publish(f"pump@2.5.{index}", **faults))
    if fault == SLOW:  # its large matrices also need memory
        fleet.set_policy(judge={**JUDGE, "memory_growth_mb": 1000.0})

    done = fleet.rollout()

    audit = ["open go", "judge fail", "back back device-01", "close failed"]
    case.survived(done, code=2, touched=["device-01"], audit=audit, message=["accuracy", "p95", "memory grew"][index])
