"""The shortest fault tests, for every test run: a good release, an unreachable canary, a power cut.

They also cover an operator's other actions over ssh: a check run, new keys, and the collection of samples.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet.releases.rotation import rotate
from tests.system.fleet_faults.conftest import Case
from tests.system.fleet_faults.fleet import AGENT, BASE, STATE, LabFleet
from tests.system.fleet_faults.playbook_runs import wait_until

pytestmark = pytest.mark.slow
LARGE = 8_000_000


def test_a_good_release_reaches_all_devices(fleet: LabFleet, case: Case) -> None:
    """No fault: a good release, rolled out twice."""
    release = fleet.publish("pump@1.1.0")
    fleet.declare(release)

    done = fleet.rollout()

    case.survived(done, code=0, ends=release, touched=fleet.names, audit=["judge pass", "close passed"])
    again = fleet.rollout()
    assert (again.code, again.changed) == (0, 0), again.output


@pytest.mark.exhaustive
def test_an_unreachable_canary_fails_the_rollout(fleet: LabFleet, case: Case) -> None:
    """The canary cannot be reached once its wave is open."""
    fleet.declare(fleet.publish("pump@1.2.0"))
    fleet.set_policy(budget={"failed": 3, "unreachable": 3})

    run = fleet.start("rollout")
    wait_until(lambda: fleet.wave_is(0, "open"), "the canary's wave is open")
    fleet[0].disconnect()
    done = fleet.finish(run)
    fleet[0].connect()

    audit = ["deploy unreachable device-01", "judge fail", "close failed"]
    case.survived(done, code=2, touched=["device-01"], audit=audit)


def test_a_power_cut_while_the_canary_unpacks_fails_the_rollout(fleet: LabFleet, case: Case) -> None:
    """The canary loses its power while it unpacks."""
    release = fleet.publish("pump@1.3.0", padding=LARGE)
    fleet.declare(release)
    canary = fleet[0]
    slot = canary.files / f"var/lib/edge-agent/releases/.{release}.partial/bundle"

    run = fleet.start("rollout")
    wait_until(slot.is_dir, "it unpacks")
    canary.unplug()
    done = fleet.finish(run)
    canary.plug()

    case.survived(done, code=2, ends=BASE, touched=["device-01"], audit=["judge fail", "close failed"])


def test_check_mode_predicts_the_rollout_and_changes_nothing(fleet: LabFleet) -> None:
    fleet.reset()
    release = fleet.publish("pump@1.4.0")
    fleet.declare(release)
    before = fleet.states()

    checked = fleet.rollout("--check", "--diff")

    assert (checked.code, checked.changed) == (0, 0), checked.output[-6000:]
    for name in fleet.names:
        assert f"{name}: {BASE} -> {release}" in checked.output
    assert fleet.states() == before
    assert fleet.record() == {}, "no rollout has begun"

    drift = fleet.play("status")
    assert drift.code == 2 and "3 of 3 devices are not as declared" in drift.output, drift.output[-3000:]


@pytest.mark.exhaustive
def test_new_keys_reach_the_devices_and_captured_samples_are_collected(fleet: LabFleet, tmp_path: Path) -> None:
    fleet.reset()
    before = fleet.states()
    rotate(fleet.repository, "root")

    done = fleet.play("rotate-keys")

    assert done.code == 0, done.output[-6000:]
    for device in fleet.devices:
        root = json.loads((device.files / STATE / "tuf/root.json").read_text())
        assert root["signed"]["version"] == fleet.repository.root.version, "trusted before the next release"
        assert fleet.state(device)["current"] == before[device.name]["current"] == BASE

    one = fleet[0]
    fleet.lab.variables["edge_agent_config"] = {**AGENT, "capture": {"enabled": True, "rate": 1.0}}
    fleet.lab.write_inventory()
    assert fleet.play("bootstrap", "--limit", one.name).code == 0
    wait_until(lambda: any((one.files / STATE / "samples").glob("*")), "the traffic is captured")

    done = fleet.play("collect-samples", "--limit", one.name, samples_folder=str(tmp_path))

    assert done.code == 0, done.output[-6000:]
    (file,) = tmp_path.iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert file.name == f"{one.name}.jsonl" and {line["release"] for line in lines} == {BASE}
    assert one.exec("sh", "-c", "ls -d /tmp/edge-agent-samples-*", check=False).stdout == "", (
        "no temporary folder remains"
    )
