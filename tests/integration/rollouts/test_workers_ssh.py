"""Rollouts through two workers, each behind an OpenSSH server, with real agents, releases and playbooks.

The devices are simulated, and local to the worker that they are assigned to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.execution.worker_job import LostError, WorkerJob
from fleet.inventory.workers import Worker
from tests.support.fleet.embedded import REPOSITORY, EmbeddedFleet, changed
from tests.support.fleet.sshd import Machine, missing

pytestmark = pytest.mark.slow
CANARY, EARLY, REST = "canary-1", "early-1", "rest-1"
# Replaces the agent's program: when it is to deploy, it writes to one pipe and then waits at another for ever.
STUCK = """\
#!/bin/sh
case "$*" in *" deploy "*) echo deploys >{base}/deploys; read nothing <{base}/never;; esac
exec {agent} "$@"
"""


class WorkedFleet(EmbeddedFleet):
    """A fleet of three devices: worker `north` has the first and the last device, worker `south` the other one."""

    def __init__(self) -> None:
        super().__init__((CANARY, EARLY, REST))
        self.north, self.south = Machine(self.base / "north"), Machine(self.base / "south")
        environment = str(Path(sys.executable).parents[1])
        hosts = {"north": self.north.variables(), "south": {**self.south.variables(), "worker_home": environment}}
        self.write("workers.yml", {"all": {"children": {"workers": {"hosts": hosts}}}})

    def history(self) -> list[tuple[Any, ...]]:
        """Return action, device and result of the last rollout's audit events, without releases and messages."""
        lines = [json.loads(line) for line in (self.record()["folder"] / "audit.jsonl").read_text().splitlines()]
        return [(line["action"], line["device"], line["result"]) for line in lines]

    def outcomes(self) -> dict[str, str]:
        return {name: device["outcome"] for name, device in self.record()["devices"].items()}

    def remove(self) -> None:
        self.north.kill()
        self.south.kill()
        super().remove()


@pytest.fixture(scope="module")
def shared_fleet() -> Iterator[WorkedFleet]:
    """A fleet whose worker `north` was set up by the playbook. The first release was rolled out without workers."""
    if lacking := missing():
        pytest.skip(lacking)
    fleet = WorkedFleet()
    try:
        fleet.north.start()
        done = fleet.playbook("workers", "--limit", "north")
        assert done.returncode == 0, done.stdout + done.stderr
        fleet.publish("pump@1.0.0")
        fleet.declare("pump@1.0.0")
        fleet.bootstrap()
        fleet.first = fleet.run("rollout", "--direct")
        assert fleet.first.returncode == 0, fleet.first.stdout + fleet.first.stderr
        yield fleet
    finally:
        fleet.remove()


@pytest.fixture
def fleet(shared_fleet: WorkedFleet) -> WorkedFleet:
    shared_fleet.set_policy()
    shared_fleet.reset_to("pump@1.0.0")
    for machine in (shared_fleet.north, shared_fleet.south):
        machine.start()
    return shared_fleet


def all_run(fleet: EmbeddedFleet, release: str) -> bool:
    return set(fleet.running().values()) == {release}


def test_a_rollout_through_both_workers_has_the_same_record_as_a_direct_one(fleet: WorkedFleet) -> None:
    direct, direct_history = fleet.record(), fleet.history()
    fleet.publish("pump@1.1.0")
    fleet.declare("pump@1.1.0")

    done = fleet.run("rollout")

    assert done.returncode == 0, done.stdout + done.stderr
    assert all_run(fleet, "pump@1.1.0")
    record = fleet.record()
    assert fleet.history() == direct_history, "the audit trail does not depend on workers"
    assert sorted(each.name for each in record["folder"].iterdir()) == sorted(
        each.name for each in direct["folder"].iterdir()
    )
    assert [(wave["name"], wave["status"], wave["devices"]) for wave in record["waves"]] == [
        (wave["name"], wave["status"], wave["devices"]) for wave in direct["waves"]
    ]
    assert f"  {EARLY}: runs pump@1.1.0, on trial (1 done)" in done.stderr.splitlines(), "reported during the rollout"
    run = sorted((fleet.rollouts / ".runs").glob("*-rollout-*"))[-1]
    deployed = {path.parents[1].name for path in run.glob("*/artifacts/*-deploy")}
    assert deployed == {"north", "south"}
    logs = subprocess.run(
        [sys.executable, "-m", "fleet", "logs", "--rollouts", str(fleet.rollouts)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert "deploy, worker south" in logs.stdout
    for machine in (fleet.north, fleet.south):
        assert not list((machine.home / ".edge-fleet").iterdir()), "no file remains on a worker"


@pytest.mark.exhaustive
def test_a_bad_release_is_rolled_back_through_both_workers(fleet: WorkedFleet) -> None:
    fleet.publish("pump@2.0.0")
    fleet.declare("pump@2.0.0")
    broken = fleet.break_install(EARLY)

    done = fleet.run("rollout")
    broken.unlink()

    assert done.returncode == 10, done.stdout + done.stderr
    assert all_run(fleet, "pump@1.0.0")
    assert fleet.outcomes() == {CANARY: "back", EARLY: "back", REST: "planned"}
    assert f"rolling back: {CANARY}, {EARLY}" in done.stderr


@pytest.mark.exhaustive
def test_after_a_worker_is_killed_during_a_wave_its_devices_are_handed_over(fleet: WorkedFleet) -> None:
    fleet.publish("pump@3.0.0")
    fleet.declare("pump@3.0.0")
    for name in ("deploys", "never"):
        os.mkfifo(fleet.base / name)
    stuck = fleet.base / "stuck"
    stuck.write_text(STUCK.format(base=fleet.base, agent=Path(sys.executable).with_name("edge-agent")))
    stuck.chmod(0o755)
    fleet.write(f"host_vars/{EARLY}.yml", {"edge_agent_binary": str(stuck)})
    options = ["-i", str(fleet.inventory), "--rollouts", str(fleet.rollouts)]
    run = subprocess.Popen(
        [sys.executable, "-m", "fleet", "rollout", *options, "--repository", str(fleet.base / "releases")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        env=fleet.environment(),
    )

    (fleet.base / "deploys").read_text()  # waits until south's device is deploying
    fleet.south.kill()
    output, _ = run.communicate(timeout=120)

    assert run.returncode == 10, output
    assert "worker south is lost" in output and f"{EARLY}: handed over to north" in output
    assert ("deploy", EARLY, "unreachable") in fleet.history()
    assert all_run(fleet, "pump@1.0.0"), "north has rolled back the device of south"
    assert fleet.outcomes() == {CANARY: "back", EARLY: "back", REST: "planned"}

    fleet.publish("pump@3.1.0")
    fleet.declare("pump@3.1.0")
    fleet.set_policy(budget={"unreachable": 1})
    without = fleet.run("rollout")

    assert without.returncode == 0, without.stdout + without.stderr
    assert fleet.running() == {CANARY: "pump@3.1.0", EARLY: "pump@1.0.0", REST: "pump@3.1.0"}
    assert "worker south is lost: ssh: connect" in fleet.record()["devices"][EARLY]["reason"]

    fleet.south.start()
    done = fleet.run("rollout")

    assert done.returncode == 0, done.stdout + done.stderr
    assert all_run(fleet, "pump@3.1.0")


def test_devices_are_rolled_back_manually_through_workers(fleet: WorkedFleet) -> None:
    fleet.reset_to("pump@1.1.0")

    done = fleet.run("rollback", "--limit", EARLY, "--reason", "alarms {{ at }} night", "--release", "pump@1.0.0")

    assert done.returncode == 0, done.stdout + done.stderr
    assert fleet.running() == {CANARY: "pump@1.1.0", EARLY: "pump@1.0.0", REST: "pump@1.1.0"}
    assert fleet.state_of(EARLY).bad == {"pump@1.1.0": "alarms {{ at }} night"}, "text, not a template"


@pytest.mark.exhaustive
def test_setting_up_a_worker_again_changes_nothing(fleet: WorkedFleet) -> None:
    done = fleet.playbook("workers", "--limit", "north")

    assert done.returncode == 0, done.stdout + done.stderr
    assert changed(done) == 0


@pytest.mark.exhaustive
def test_an_unknown_host_key_is_refused_for_workers_and_for_devices(fleet: WorkedFleet) -> None:
    worker = Worker.model_validate({**fleet.north.variables("known_hosts_empty"), "name": "north"})
    (fleet.base / "job/send").mkdir(parents=True)

    with pytest.raises(LostError, match="Host key verification failed"):
        WorkerJob(worker, "x", fleet.base / "job", "01-ask").run(("asked",), (), lambda event: False)

    unknown = {**fleet.north.variables("known_hosts_empty"), "ansible_control_path_dir": str(fleet.base / "control")}
    fleet.write(f"host_vars/{CANARY}.yml", unknown)  # no connection of another test is reused
    done = fleet.run("rollout", "--check", "--direct")
    (fleet.inventory / f"host_vars/{CANARY}.yml").unlink()
    assert done.returncode == 11, done.stderr
    assert "Host key verification failed" in done.stderr
