"""An aarch64 device of a lab is booted, bootstrapped and part of a rollout like the others, and removed completely."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleet.inventory import model
from lab import Device, Lab, LabError
from lab.lab import ARM64_TYPE
from tests.support.labs import is_removed, need_lab, remains_of, start_lab
from tests.system.fleet_faults.fleet import BASE, LabFleet

# On a new machine, emulated programs first build its Debian and the agent's environment.
pytestmark = [pytest.mark.slow, pytest.mark.fleet, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[LabFleet]:
    """A fleet of two devices, one of this machine's architecture and one of aarch64, both on BASE."""
    need_lab(arm64=True)
    with LabFleet(2, arm64=1) as lab_fleet:
        yield lab_fleet


@pytest.fixture
def arm(fleet: LabFleet) -> Device:
    return fleet[1]


def test_the_device_is_a_separate_aarch64_machine(fleet: LabFleet, arm: Device) -> None:
    result = fleet.lab.ssh(
        arm, "uname -m; dpkg --print-architecture; hostname; systemctl is-system-running; sudo id -un"
    )

    assert result.stdout.split() == ["aarch64", "arm64", arm.name, "running", "root"], result.stderr
    assert fleet.lab.ssh(fleet[0], "uname -m").stdout.strip() == fleet[0].architecture != arm.architecture


def test_a_release_reaches_one_device_of_each_type(fleet: LabFleet, arm: Device) -> None:
    """The first wave has one device of each type. Both test the release before they serve it."""
    release = fleet.publish("pump@1.1.0", targets=("onnx-fp32", "tflite-int8"))
    fleet.declare(release)
    fleet.set_policy(waves=[{"name": "canaries", "per_type": 1}])

    done = fleet.rollout()

    assert done.code == 0, done.output[-6000:]
    assert {device.type for device in model.load(fleet.inventory).devices} == {"generic", ARM64_TYPE}
    assert [wave["devices"] for wave in fleet.record()["waves"]] == [fleet.names]
    fleet.wait_settled(dict.fromkeys(fleet.names, release))
    assert fleet.agent(arm, "status")["device"]["architecture"] == "aarch64"


def test_a_device_keeps_its_release_after_a_power_cut(fleet: LabFleet, arm: Device) -> None:
    release = fleet.state(arm)["current"]

    arm.unplug()
    arm.plug()

    fleet.wait_settled({arm.name: release})
    assert release != BASE


def test_a_killed_lab_is_removed_automatically(fleet: LabFleet) -> None:
    process, identity = start_lab("--arm64", "1")
    assert f"edge-lab-{identity}-1" in remains_of(identity)
    process.kill()
    process.communicate(timeout=60)

    assert is_removed(identity)


def test_more_aarch64_devices_than_devices_are_refused() -> None:
    with pytest.raises(LabError, match="0 to 2, the number of devices"):
        Lab(2, arm64=3)
