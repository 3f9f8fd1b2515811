"""Playbooks over simulated devices: agents that hang, wrong inventories, and devices that are rolled back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.fleet.embedded import (
    CANARY,
    EARLY,
    REPOSITORY,
    REST,
    UNREACHABLE,
    EmbeddedFleet,
    all_run,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("playbook", ["rollout", "rollback", "bootstrap"])
@pytest.mark.parametrize(("group", "reason"), [("device", "no such group"), ("devices", "no host in it")])
def test_an_inventory_without_devices_is_refused(tmp_path: Path, playbook: str, group: str, reason: str) -> None:
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {group: {"hosts": {}}}}}))

    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path, f"playbooks/{playbook}.yml"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2, done.stdout
    assert f"{tmp_path}: group devices: found {reason}, expected" in " ".join(done.stdout.split())


@pytest.mark.exhaustive
def test_a_bad_configuration_stops_bootstrap_at_the_first_device(fleet: EmbeddedFleet) -> None:
    file = fleet.inventory / "group_vars/all.yml"
    variables = yaml.safe_load(file.read_text())
    file.write_text(
        yaml.safe_dump({**variables, "edge_agent_config": {**variables["edge_agent_config"], "nonsense": {"a": 1}}})
    )

    done = fleet.playbook("bootstrap")

    assert done.returncode == 2, done.stdout[-3000:]
    recap = done.stdout.partition("PLAY RECAP")[2]
    assert recap.count("failed=1") == 1
    assert done.stdout.count("TASK [edge_agent : Write the configuration]") == 1
    assert all_run(fleet, "pump@1.0.0")


def test_ansible_become_of_all_hosts_does_not_apply_to_the_controller(fleet: EmbeddedFleet) -> None:
    file = fleet.inventory / "group_vars/all.yml"
    become = {"ansible_become": True, "ansible_become_exe": "/bin/false", "ansible_become_user": "daemon"}
    file.write_text(file.read_text() + yaml.safe_dump(become))
    fleet.write("group_vars/devices.yml", {"release": "pump@1.0.0", "ansible_become": False})

    done = fleet.playbook("rollout")

    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("through", ["ansible-playbook", pytest.param("a worker", marks=pytest.mark.exhaustive)])
def test_only_what_the_latest_rollout_delivered_is_rolled_back(fleet: EmbeddedFleet, through: str) -> None:
    """Only the canary has the release, and the rollout waits for approval."""
    release = "pump@1.2.0" if through == "a worker" else "pump@1.2.1"
    fleet.publish(release)
    fleet.declare(release)
    fleet.set_policy(approve=["early"])
    assert fleet.run("rollout").returncode == 11
    assert fleet.running() == {CANARY: release, EARLY: "pump@1.0.0", REST: "pump@1.0.0"}
    if through == "a worker":
        worker = {"ansible_connection": "local", "worker_home": str(Path(sys.executable).parents[1])}
        fleet.write("workers.yml", {"all": {"children": {"workers": {"hosts": {"north": worker}}}}})

    done = fleet.run("rollback", "--reason", "panic")

    assert done.returncode == 0, done.stderr
    assert all_run(fleet, "pump@1.0.0")
    assert [fleet.state_of(name).bad for name in fleet.names] == [{release: "panic"}, {}, {}]
    table = json.loads(done.stdout)["table"]
    assert f"{REST}: left unchanged: runs pump@1.0.0, which the latest rollout did not deliver" in table

    fleet.agent(CANARY, "forget", release)
    fleet.agent(CANARY, "activate", release)
    fleet.write(f"host_vars/{REST}.yml", UNREACHABLE)
    if through == "a worker":
        done = fleet.run("rollback", "--reason", "panic")
        assert done.returncode == 10 and json.loads(done.stdout)["reason"] == REST, done.stdout
    else:
        done = fleet.playbook("rollback", reason="panic")
        assert done.returncode == 2 and f"{REST}: NOT rolled back: " in done.stdout, done.stdout[-3000:]
    assert all_run(fleet, "pump@1.0.0")


@pytest.mark.parametrize("hangs_for", [pytest.param("*", marks=pytest.mark.exhaustive), "*deploy*"])
def test_a_device_that_hangs_does_not_delay_the_others(fleet: EmbeddedFleet, hangs_for: str) -> None:
    """The agent's program does not end, either for every command or only for a deployment."""
    release = "pump@4.1.0" if hangs_for == "*" else "pump@4.2.0"
    fleet.publish(release)
    fleet.declare(release)
    program, agent = fleet.base / "hangs", Path(sys.executable).with_name("edge-agent")
    program.write_text(f'#!/bin/sh\ncase "$*" in {hangs_for}) sleep 600 ;; esac\nexec {agent} "$@"\n')
    program.chmod(0o755)
    limit = "rollout_answer_s" if hangs_for == "*" else "rollout_deploy_s"
    fleet.write(f"host_vars/{REST}.yml", {"edge_agent_binary": str(program), limit: 3})

    if hangs_for == "*":
        refused = fleet.run("rollout")
        assert refused.returncode == 11, refused.stderr
        assert json.loads(refused.stdout)["found"] == f"1 device(s) do not respond, 0 allowed: {REST}"
        assert all_run(fleet, "pump@1.0.0")
    fleet.set_policy(budget={"unreachable": 1})
    done = fleet.run("rollout")

    assert done.returncode == 0, done.stderr
    assert fleet.running() == {CANARY: release, EARLY: release, REST: "pump@1.0.0"}
    assert not [each for each in psutil.process_iter() if str(program) in _command(each)], (
        "the hanging command was ended"
    )


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
