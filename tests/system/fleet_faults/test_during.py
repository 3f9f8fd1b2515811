"""What happens while a wave changes: plugs, cables, processes, clocks, disks."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from lab import Device
from tests.system.fleet_faults.conftest import Case
from tests.system.fleet_faults.fleet import BASE, STATE, LabFleet
from tests.system.fleet_faults.runs import Playing, until

pytestmark = [pytest.mark.slow, pytest.mark.fleet, pytest.mark.timeout(1800)]
LARGE = 15_000_000
FAILED = ["open go", "judge fail", "close failed"]
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def moment(fleet: LabFleet, device: Device, name: str, release: str) -> bool:
    """Whether a device's disk says that it is at this moment of a change to `release`."""
    disk, state = device.files / STATE, fleet.state(device)
    if name == "before the install":
        return any((disk / "repository/targets").rglob("*.zst"))
    if name == "while it unpacks":
        return (disk / f"releases/.{release}.partial/bundle").is_dir()
    if name in ("after the switch", "during the trial"):
        switched = state["current"] == release and state["trial"] is not None
        return switched and (name == "after the switch" or answering(device) == release)
    return state["current"] == BASE and release in state["bad"]


def answering(device: Device) -> str:
    """The release whose model answers there."""
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8650/info').read().decode())"
    answer: str = json.loads(device.exec("python3", "-c", ask).stdout)["release"]
    return answer


MOMENTS = ("before the install", "while it unpacks", "after the switch", "during the trial", "during the rollback")


@pytest.mark.parametrize("name", MOMENTS)
def test_plug(fleet: LabFleet, case: Case, name: str) -> None:
    """The canary's plug is pulled"""
    place = MOMENTS.index(name)
    wrong = {"seed": 7} if name == "during the rollback" else {}
    release = fleet.publish(f"pump@3.0.{place}", padding=LARGE, **wrong)
    fleet.declare(release)
    canary = fleet[0]

    playing = fleet.start("rollout")
    until(lambda: moment(fleet, canary, name, release), name)
    canary.unplug()
    assert (fleet.state(canary)["trial"] is not None) == (name in ("after the switch", "during the trial"))
    done = fleet.finish(playing)
    canary.plug()

    ends = dict.fromkeys(fleet.names, BASE)
    fleet_ran = fleet.state(canary)["current"]
    ends[canary.name] = fleet_ran
    assert fleet_ran == BASE or (fleet_ran == release and not wrong)
    case.survived(done, code=2, ends=ends, touched=[canary.name], audit=FAILED)


def test_cable_mid_copy(fleet: LabFleet, case: Case) -> None:
    """The cable is cut while the release is copied."""
    fleet.declare(fleet.publish("pump@3.1.0", padding=LARGE))
    canary = fleet[0]

    playing = fleet.start("rollout")
    until(lambda: any(arriving(canary)), "the copy has begun")
    canary.disconnect()
    done = fleet.finish(playing)
    canary.connect()

    case.survived(done, code=2, touched=[canary.name], audit=[*FAILED, "deploy unreachable device-01"])


def arriving(device: Device) -> list[Path]:
    """A large archive that is being unpacked as it comes."""
    found = []
    for file in (device.files / STATE / "repository/targets").rglob("*.zst"):
        try:
            if 1_000_000 < file.stat().st_size < LARGE:
                found.append(file)
        except FileNotFoundError:
            continue
    return found


def test_canary_gone_after_preflight(fleet: LabFleet, case: Case) -> None:
    """The canary cannot be reached once its wave is open."""
    fleet.declare(fleet.publish("pump@3.2.0"))
    fleet.set_policy(budget={"failed": 4, "unreachable": 4})

    playing = fleet.start("rollout")
    until(lambda: fleet.wave_is(0, "open"), "the canary's wave is open")
    fleet[0].disconnect()
    done = fleet.finish(playing)
    fleet[0].connect()

    case.survived(done, code=2, touched=["device-01"], audit=[*FAILED, "deploy unreachable device-01"])


def test_canary_silent(fleet: LabFleet, case: Case) -> None:
    """The canary falls silent during the bake, and is called back by the next run."""
    release = fleet.publish("pump@3.3.0")
    fleet.declare(release)
    canary = fleet[0]

    playing = fleet.start("rollout")
    until(lambda: fleet.state(canary)["current"] == release and not fleet.state(canary)["trial"], "confirmed")
    canary.disconnect()
    done = fleet.finish(playing)
    canary.connect()

    ends = {**dict.fromkeys(fleet.names, BASE), canary.name: release}
    case.survived(done, code=2, ends=ends, touched=[canary.name], audit=[*FAILED, "back pending device-01"])
    fleet.declare(BASE)
    assert fleet.rollout().code == 0
    fleet.settled(dict.fromkeys(fleet.names, BASE))


@pytest.mark.parametrize("what", ["deploy", "serve"])
def test_agent_killed(fleet: LabFleet, case: Case, what: str) -> None:
    """The canary's agent is killed"""
    release = fleet.publish(f"pump@3.4.{int(what == 'serve')}", padding=LARGE)
    fleet.declare(release)
    canary = fleet[0]

    playing = fleet.start("rollout")
    if what == "deploy":
        agent = f"^/opt/edge-agent/.* deploy {release}"  # and not the shells that wait for it
        until(lambda: canary.exec("pkill", "-KILL", "-f", agent, check=False).returncode == 0, "killed")
    else:
        until(lambda: fleet.state(canary)["current"] == release and not fleet.state(canary)["trial"], "confirmed")
        canary.exec("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "edge-agent")
    done = fleet.finish(playing)

    case.survived(done, code=2, touched=[canary.name], audit=FAILED)


def test_later_device_off_during(fleet: LabFleet, case: Case) -> None:
    """The second wave's only device goes off, within the budget: nothing to judge, a pause; the next run goes on."""
    release = fleet.publish("pump@3.5.0")
    fleet.declare(release)
    fleet.set_policy(budget={"failed": 0, "unreachable": 1})
    second = fleet[1]

    playing = fleet.start("rollout")
    until(lambda: moment(fleet, second, "before the install", release), "its wave")
    second.unplug()
    done = fleet.finish(playing)
    second.plug()

    ends = {"device-01": release, "device-02": fleet.state(second)["current"], "device-03": BASE}
    audit = ["judge inconclusive", "close paused"]
    case.survived(done, code=2, ends=ends, touched=["device-01", "device-02"], audit=audit, says="0 inferences")
    assert fleet.rollout().code == 0
    fleet.settled(dict.fromkeys(fleet.names, release))


def test_later_device_off_after(fleet: LabFleet, case: Case) -> None:
    """A device of the second wave goes off after its wave, within the budget."""
    release = fleet.publish("pump@3.5.1")
    fleet.declare(release)
    fleet.set_policy(budget={"failed": 0, "unreachable": 1})
    second = fleet[1]

    playing = fleet.start("rollout")
    until(lambda: fleet.wave_is(1, "pass"), "its wave has passed")
    second.unplug()
    done = fleet.finish(playing)
    second.plug()

    case.survived(done, code=0, ends=release, touched=fleet.names, audit=["close passed"])


def test_later_device_off_before(fleet: LabFleet, case: Case) -> None:
    """A device is off when the rollout begins, within the budget; the next run brings it along."""
    release = fleet.publish("pump@3.6.0")
    fleet.declare(release)
    fleet.set_policy(budget={"failed": 0, "unreachable": 1})
    fleet[2].unplug()

    done = fleet.rollout()
    fleet[2].plug()

    ends = {**dict.fromkeys(fleet.names, release), "device-03": BASE}
    case.survived(done, code=0, ends=ends, touched=fleet.names[:2], audit=["close passed"])
    assert fleet.rollout().code == 0
    fleet.settled(dict.fromkeys(fleet.names, release))


@pytest.mark.parametrize("allowed", [1, 0])
def test_budget(fleet: LabFleet, case: Case, allowed: int) -> None:
    """A device with a worn card among the second wave's two, failures allowed"""
    release = fleet.publish(f"pump@3.7.{allowed}")
    fleet.declare(release)
    waves = [{"name": "canary", "count": 1}, {"name": "rest", "rest": True}]
    fleet.set_policy(waves=waves, budget={"failed": allowed, "unreachable": 0})
    worn(fleet, fleet[1], "install.before_rename=error")

    done = fleet.rollout()

    audit = ["judge pass", "deploy failed device-02", f"close {'passed' if allowed else 'failed'}"]
    if allowed:
        ends = {**dict.fromkeys(fleet.names, release), "device-02": BASE}
        case.survived(done, code=0, ends=ends, touched=fleet.names, audit=audit)
    else:
        back = [f"back back {name}" for name in ("device-01", "device-03")]
        case.survived(done, code=2, touched=fleet.names, audit=[*audit, *back])


def worn(fleet: LabFleet, device: Device, fault: str) -> None:
    """The device's agent meets a fault of device/edge_agent/core/fault_points.py whenever Ansible calls it."""
    program = f'#!/bin/sh\nEDGE_AGENT_FAULT={fault} exec /opt/edge-agent/bin/edge-agent "$@"\n'
    device.exec("install", "-m", "0755", "/dev/stdin", "/usr/local/bin/worn-agent", stdin=program.encode())
    fleet.own(device, edge_agent_binary="/usr/local/bin/worn-agent")


def test_disk_full(fleet: LabFleet, case: Case) -> None:
    """The canary's disk fills up while the release is brought."""
    release = fleet.publish("pump@3.8.0", padding=LARGE)
    fleet.declare(release)
    canary = fleet[0]
    script = (
        "systemctl stop edge-agent; cd /var/lib; cp -a edge-agent kept; mount -t tmpfs -o size=200m,mode=0750 tmpfs "
        "edge-agent; chown edge-agent:edge-agent edge-agent; cp -a kept/. edge-agent; systemctl start edge-agent"
    )
    canary.exec("sh", "-euc", script)

    playing = fleet.start("rollout")
    until(lambda: fleet.wave_is(0, "open"), "the canary's wave is open")
    canary.exec("sh", "-c", "head -c 300M /dev/zero >/var/lib/edge-agent/full", check=False)
    done = fleet.finish(playing)
    canary.exec("rm", "/var/lib/edge-agent/full")

    case.survived(done, code=2, touched=[canary.name], audit=FAILED)
    canary.exec("sh", "-euc", "systemctl stop edge-agent; umount /var/lib/edge-agent; systemctl start edge-agent")


def test_clock_wrong(fleet: LabFleet, case: Case) -> None:
    """A device's clock is a day behind."""
    fleet.declare(fleet.publish("pump@3.9.0"))
    device = fleet[2]
    device.exec("install", "-m", "0644", "/dev/stdin", "/usr/local/lib/faketime.so", stdin=FAKETIME.read_bytes())
    program = '#!/bin/sh\nLD_PRELOAD=/usr/local/lib/faketime.so FAKETIME=-1d exec /opt/edge-agent/bin/edge-agent "$@"\n'
    device.exec("install", "-m", "0755", "/dev/stdin", "/usr/local/bin/late-agent", stdin=program.encode())
    fleet.own(device, edge_agent_binary="/usr/local/bin/late-agent")

    case.survived(fleet.rollout(), code=2, says="its clock says")


def test_controller_killed(fleet: LabFleet, case: Case) -> None:
    """The controller is killed in the second wave; the next run goes on."""
    release = fleet.publish("pump@3.10.0")
    fleet.declare(release)

    killed = fleet.start("rollout")
    until(lambda: fleet.wave_is(1, "open"), "the second wave is open")
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    changed = {name for name, state in fleet.states().items() if state["current"] != BASE}
    assert changed <= {"device-01", "device-02"}
    done = fleet.rollout()

    audit = ["begin running", "resume running", "close passed"]
    case.survived(done, code=0, ends=release, touched=fleet.names, audit=audit, says="goes on: 2 of 3 devices are left")


def test_two_at_once(fleet: LabFleet, case: Case) -> None:
    """A second rollout begins while one runs."""
    release = fleet.publish("pump@3.11.0")
    fleet.declare(release)

    first: Playing = fleet.start("rollout")
    until(lambda: fleet.wave_is(0, "open"), "the first wave is open")
    second = fleet.rollout()
    done = fleet.finish(first)

    assert second.code == 2 and "one rollout per fleet at a time" in " ".join(second.output.split()), second.output
    case.survived(done, code=0, ends=release, touched=fleet.names, audit=["close passed"])
