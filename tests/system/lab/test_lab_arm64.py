"""An aarch64 device of a lab: booted like the others, bootstrapped, part of a rollout, and gone without a trace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleet.inventory import model
from lab import Device, Lab, LabError
from lab.lab import ARM64_TYPE
from tests.support.labs import gone, keep_up, left, need_lab
from tests.system.fleet_faults.fleet import BASE, LabFleet

# On a machine that has none yet, its Debian and the agent's environment are built first, by emulated programs.
pytestmark = [pytest.mark.slow, pytest.mark.fleet, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[LabFleet]:
    """One device of this machine's architecture and one of aarch64, both on BASE."""
    need_lab(arm64=True)
    with LabFleet(2, arm64=1) as made:
        yield made


@pytest.fixture
def arm(fleet: LabFleet) -> Device:
    return fleet[1]


def test_it_is_an_aarch64_machine_of_its_own(fleet: LabFleet, arm: Device) -> None:
    seen = fleet.lab.ssh(arm, "uname -m; dpkg --print-architecture; hostname; systemctl is-system-running; sudo id -un")

    assert seen.stdout.split() == ["aarch64", "arm64", arm.name, "running", "root"], seen.stderr
    assert fleet.lab.ssh(fleet[0], "uname -m").stdout.strip() == fleet[0].architecture != arm.architecture


def test_a_release_reaches_one_device_of_each_type(fleet: LabFleet, arm: Device) -> None:
    """The first wave has one of each type; both have tested the release before it serves."""
    release = fleet.publish("pump@1.1.0", targets=("onnx-fp32", "tflite-int8"))
    fleet.declare(release)
    fleet.set_policy(waves=[{"name": "canaries", "per_type": 1}])

    done = fleet.rollout()

    assert done.code == 0, done.output[-6000:]
    assert {device.type for device in model.load(fleet.inventory).devices} == {"generic", ARM64_TYPE}
    assert [wave["devices"] for wave in fleet.record()["waves"]] == [fleet.names]
    fleet.settled(dict.fromkeys(fleet.names, release))
    assert fleet.agent(arm, "status")["device"]["architecture"] == "aarch64"


def test_the_power_goes_and_comes_back(fleet: LabFleet, arm: Device) -> None:
    release = fleet.state(arm)["current"]

    arm.unplug()
    arm.plug()

    fleet.settled({arm.name: release})
    assert release != BASE


def test_what_a_killed_lab_left_goes_by_itself(fleet: LabFleet) -> None:
    process, identity = keep_up("--arm64", "1")
    assert f"edge-lab-{identity}-1" in left(identity)
    process.kill()
    process.communicate(timeout=60)

    assert gone(identity)


def test_no_more_of_them_than_devices() -> None:
    with pytest.raises(LabError, match="0 to 2, the number of devices"):
        Lab(2, arm64=3)
