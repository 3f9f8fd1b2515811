"""Faults during a wave: power, network, killed processes, wrong clocks, full disks."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from lab import Device
from tests.system.fleet_faults.conftest import Case
from tests.system.fleet_faults.fleet import BASE, STATE, LabFleet
from tests.system.fleet_faults.playbook_runs import PlaybookRun, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.fleet, pytest.mark.timeout(1800)]
LARGE = 15_000_000
FAILED = ["open go", "judge fail", "close failed"]
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def is_at(fleet: LabFleet, device: Device, moment: str, release: str) -> bool:
    """Return whether the device's disk shows this moment of a change to `release`."""
    disk, state = device.files / STATE, fleet.state(device)
    if moment == "before the install":
        return any((disk / "repository/targets").rglob("*.zst"))
    if moment == "while it unpacks":
        return (disk / f"releases/.{release}.partial/bundle").is_dir()
    if moment in ("after the switch", "during the trial"):
        switched = state["current"] == release and state["trial"] is not None
        return switched and (moment == "after the switch" or loaded_release(device) == release)
    return state["current"] == BASE and release in state["bad"]


def loaded_release(device: Device) -> str:
    """Return the release that the device serves."""
    program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8650/info').read().decode())"
    release: str = json.loads(device.exec("python3", "-c", program).stdout)["release"]
    return release


MOMENTS = ("before the install", "while it unpacks", "after the switch", "during the trial", "during the rollback")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_power_cut_of_the_canary_ends_the_rollout(fleet: LabFleet, case: Case, moment: str) -> None:
    """The canary loses its power"""
    index = MOMENTS.index(moment)
    faults = {"seed": 7} if moment == "during the rollback" else {}
    release = fleet.publish(f"pump@3.0.{index}", padding=LARGE, **faults)
    fleet.declare(release)
    canary = fleet[0]

    run = fleet.start("rollout")
    wait_until(lambda: is_at(fleet, canary, moment, release), moment)
    canary.unplug()
    assert (fleet.state(canary)["trial"] is not None) == (moment in ("after the switch", "during the trial"))
    done = fleet.finish(run)
    canary.plug()

    ends = dict.fromkeys(fleet.names, BASE)
    booted = fleet.state(canary)["current"]
    ends[canary.name] = booted
    assert booted == BASE or (booted == release and not faults)
    case.survived(done, code=2, ends=ends, touched=[canary.name], audit=FAILED)


def test_a_cable_cut_during_the_copy_fails_the_canary(fleet: LabFleet, case: Case) -> None:
    """The cable is cut while the release is copied."""
    fleet.declare(fleet.publish("pump@3.1.0", padding=LARGE))
    canary = fleet[0]

    run = fleet.start("rollout")
    wait_until(lambda: any(partial_archives(canary)), "the copy has begun")
    canary.disconnect()
    done = fleet.finish(run)
    canary.connect()

    case.survived(done, code=2, touched=[canary.name], audit=[*FAILED, "deploy unreachable device-01"])


def partial_archives(device: Device) -> list[Path]:
    """Return the large archives that the device is receiving."""
    archives = []
    for file in (device.files / STATE / "repository/targets").rglob("*.zst"):
        try:
            if 1_000_000 < file.stat().st_size < LARGE:
                archives.append(file)
        except FileNotFoundError:
            continue
    return archives


def test_an_unreachable_canary_fails_the_rollout(fleet: LabFleet, case: Case) -> None:
    """The canary cannot be reached once its wave is open."""
    fleet.declare(fleet.publish("pump@3.2.0"))
    fleet.set_policy(budget={"failed": 4, "unreachable": 4})

    run = fleet.start("rollout")
    wait_until(lambda: fleet.wave_is(0, "open"), "the canary's wave is open")
    fleet[0].disconnect()
    done = fleet.finish(run)
    fleet[0].connect()

    case.survived(done, code=2, touched=["device-01"], audit=[*FAILED, "deploy unreachable device-01"])


def test_a_canary_that_loses_its_network_in_the_bake_is_rolled_back_by_the_next_run(
    fleet: LabFleet, case: Case
) -> None:
    """The canary loses its network during the bake and is rolled back by the next run."""
    release = fleet.publish("pump@3.3.0")
    fleet.declare(release)
    canary = fleet[0]

    run = fleet.start("rollout")
    wait_until(lambda: fleet.state(canary)["current"] == release and not fleet.state(canary)["trial"], "confirmed")
    canary.disconnect()
    done = fleet.finish(run)
    canary.connect()

    ends = {**dict.fromkeys(fleet.names, BASE), canary.name: release}
    case.survived(done, code=2, ends=ends, touched=[canary.name], audit=[*FAILED, "back pending device-01"])
    fleet.declare(BASE)
    assert fleet.rollout().code == 0
    fleet.wait_settled(dict.fromkeys(fleet.names, BASE))


@pytest.mark.parametrize("process", ["deploy", "serve"])
def test_a_killed_agent_fails_the_canary(fleet: LabFleet, case: Case, process: str) -> None:
    """The canary's agent is killed"""
    release = fleet.publish(f"pump@3.4.{int(process == 'serve')}", padding=LARGE)
    fleet.declare(release)
    canary = fleet[0]

    run = fleet.start("rollout")
    if process == "deploy":
        agent = f"^/opt/edge-agent/.* deploy {release}"  # not the shells that wait for it
        wait_until(lambda: canary.exec("pkill", "-KILL", "-f", agent, check=False).returncode == 0, "killed")
    else:
        wait_until(lambda: fleet.state(canary)["current"] == release and not fleet.state(canary)["trial"], "confirmed")
        canary.exec("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "edge-agent")
    done = fleet.finish(run)

    case.survived(done, code=2, touched=[canary.name], audit=FAILED)


def test_a_device_off_in_its_wave_pauses_the_rollout_and_the_next_run_continues(fleet: LabFleet, case: Case) -> None:
    """The second wave's only device loses power, within the budget: the rollout pauses, and the next run continues."""
    release = fleet.publish("pump@3.5.0")
    fleet.declare(release)
    fleet.set_policy(budget={"failed": 0, "unreachable": 1})
    second = fleet[1]

    run = fleet.start("rollout")
    wait_until(lambda: is_at(fleet, second, "before the install", release), "its wave")
    second.unplug()
    done = fleet.finish(run)
    second.plug()

    ends = {"device-01": release, "device-02": fleet.state(second)["current"], "device-03": BASE}
    audit = ["judge inconclusive", "close paused"]
    case.survived(done, code=2, ends=ends, touched=["device-01", "device-02"], audit=audit, message="0 inferences")
    assert fleet.rollout().code == 0
    fleet.wait_settled(dict.fromkeys(fleet.names, release))


def test_a_device_off_after_its_wave_does_not_stop_the_rollout(fleet: LabFleet, case: Case) -> None:
    """A device of the second wave loses power after its wave, within the budget."""
    release = fleet.publish("pump@3.5.1")
    fleet.declare(release)
    fleet.set_policy(budget={"failed": 0, "unreachable": 1})
    second = fleet[1]

    run = fleet.start("rollout")
    wait_until(lambda: fleet.wave_is(1, "pass"), "its wave has passed")
    second.unplug()
    done = fleet.finish(run)
    second.plug()

    case.survived(done, code=0, ends=release, touched=fleet.names, audit=["close passed"])


def test_a_device_off_before_the_rollout_is_updated_by_the_next_run(fleet: LabFleet, case: Case) -> None:
    """A device is off when the rollout begins, within the budget; the next run updates it."""
    release = fleet.publish("pump@3.6.0")
    fleet.declare(release)
    fleet.set_policy(budget={"failed": 0, "unreachable": 1})
    fleet[2].unplug()

    done = fleet.rollout()
    fleet[2].plug()

    ends = {**dict.fromkeys(fleet.names, release), "device-03": BASE}
    case.survived(done, code=0, ends=ends, touched=fleet.names[:2], audit=["close passed"])
    assert fleet.rollout().code == 0
    fleet.wait_settled(dict.fromkeys(fleet.names, release))


@pytest.mark.parametrize("allowed", [1, 0])
def test_the_failure_budget_decides_after_a_failed_device(fleet: LabFleet, case: Case, allowed: int) -> None:
    """A device with a worn card in the second wave of two, failures allowed"""
    release = fleet.publish(f"pump@3.7.{allowed}")
    fleet.declare(release)
    waves = [{"name": "canary", "count": 1}, {"name": "rest", "rest": True}]
    fleet.set_policy(waves=waves, budget={"failed": allowed, "unreachable": 0})
    inject_agent_fault(fleet, fleet[1], "install.before_rename=error")

    done = fleet.rollout()

    audit = ["judge pass", "deploy failed device-02", f"close {'passed' if allowed else 'failed'}"]
    if allowed:
        ends = {**dict.fromkeys(fleet.names, release), "device-02": BASE}
        case.survived(done, code=0, ends=ends, touched=fleet.names, audit=audit)
    else:
        rollbacks = [f"back back {name}" for name in ("device-01", "device-03")]
        case.survived(done, code=2, touched=fleet.names, audit=[*audit, *rollbacks])


def inject_agent_fault(fleet: LabFleet, device: Device, fault: str) -> None:
    """Inject a fault (edge_agent.core.fault_points) into every agent command that Ansible runs on the device."""
    program = f'#!/bin/sh\nEDGE_AGENT_FAULT={fault} exec /opt/edge-agent/bin/edge-agent "$@"\n'
    device.exec("install", "-m", "0755", "/dev/stdin", "/usr/local/bin/worn-agent", stdin=program.encode())
    fleet.set_host_variables(device, edge_agent_binary="/usr/local/bin/worn-agent")


def test_a_full_disk_fails_the_canary(fleet: LabFleet, case: Case) -> None:
    """The canary's disk fills up while the release is delivered."""
    release = fleet.publish("pump@3.8.0", padding=LARGE)
    fleet.declare(release)
    canary = fleet[0]
    script = (
        "systemctl stop edge-agent; cd /var/lib; cp -a edge-agent kept; mount -t tmpfs -o size=200m,mode=0750 tmpfs "
        "edge-agent; chown edge-agent:edge-agent edge-agent; cp -a kept/. edge-agent; systemctl start edge-agent"
    )
    canary.exec("sh", "-euc", script)

    run = fleet.start("rollout")
    wait_until(lambda: fleet.wave_is(0, "open"), "the canary's wave is open")
    canary.exec("sh", "-c", "head -c 300M /dev/zero >/var/lib/edge-agent/full", check=False)
    done = fleet.finish(run)
    canary.exec("rm", "/var/lib/edge-agent/full")

    case.survived(done, code=2, touched=[canary.name], audit=FAILED)
    canary.exec("sh", "-euc", "systemctl stop edge-agent; umount /var/lib/edge-agent; systemctl start edge-agent")


def test_a_wrong_clock_stops_the_rollout(fleet: LabFleet, case: Case) -> None:
    """A device's clock is a day behind."""
    fleet.declare(fleet.publish("pump@3.9.0"))
    device = fleet[2]
    device.exec("install", "-m", "0644", "/dev/stdin", "/usr/local/lib/faketime.so", stdin=FAKETIME.read_bytes())
    program = '#!/bin/sh\nLD_PRELOAD=/usr/local/lib/faketime.so FAKETIME=-1d exec /opt/edge-agent/bin/edge-agent "$@"\n'
    device.exec("install", "-m", "0755", "/dev/stdin", "/usr/local/bin/late-agent", stdin=program.encode())
    fleet.set_host_variables(device, edge_agent_binary="/usr/local/bin/late-agent")

    case.survived(fleet.rollout(), code=2, message="its clock shows")


def test_the_rollout_of_a_killed_controller_is_continued_by_the_next_run(fleet: LabFleet, case: Case) -> None:
    """The controller is killed in the second wave; the next run continues."""
    release = fleet.publish("pump@3.10.0")
    fleet.declare(release)

    killed = fleet.start("rollout")
    wait_until(lambda: fleet.wave_is(1, "open"), "the second wave is open")
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    changed = {name for name, state in fleet.states().items() if state["current"] != BASE}
    assert changed <= {"device-01", "device-02"}
    done = fleet.rollout()

    audit = ["begin running", "resume running", "close passed"]
    case.survived(
        done, code=0, ends=release, touched=fleet.names, audit=audit, message="resumes: 2 of 3 devices remain"
    )


def test_a_second_rollout_at_the_same_time_is_refused(fleet: LabFleet, case: Case) -> None:
    """A second rollout begins while one runs."""
    release = fleet.publish("pump@3.11.0")
    fleet.declare(release)

    first: PlaybookRun = fleet.start("rollout")
    wait_until(lambda: fleet.wave_is(0, "open"), "the first wave is open")
    second = fleet.rollout()
    done = fleet.finish(first)

    assert second.code == 2 and "one rollout per fleet at a time" in " ".join(second.output.split()), second.output
    case.survived(done, code=0, ends=release, touched=fleet.names, audit=["close passed"])
