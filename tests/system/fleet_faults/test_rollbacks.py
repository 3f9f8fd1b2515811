"""Measure a hundred rollbacks on a simulated device, and a hundred failed rollouts with the whole playbook.

The agent, its service, its releases and its disk are real; systemd, ssh and the device are simulated. Each bad release
is deployed, loaded, and rolled back with the command of rollback.yml's task. The commands run in this process, because
a command line would only add the start of an interpreter.
"""

from __future__ import annotations

import json
import statistics
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_agent.core import config as configuration
from edge_agent.core.errors import AgentError
from edge_agent.lifecycle import operations, switching
from edge_agent.lifecycle.status import status

from fleet.rollout import payload
from tests.support.agent.bundles import GARBAGE
from tests.support.fleet.embedded import EmbeddedFleet
from tests.system.fleet_faults.conftest import rollback_seconds

pytestmark = [pytest.mark.slow, pytest.mark.fleet, pytest.mark.timeout(5400)]
BASE = "pump@1.0.0"
ROLLBACKS = 100
ROLLOUTS = 100
AIM_S = 5.0


@pytest.fixture(scope="module")
def fleet() -> Iterator[EmbeddedFleet]:
    embedded_fleet = EmbeddedFleet(("canary-1", "early-1", "rest-1"))
    try:
        embedded_fleet.publish(BASE)
        embedded_fleet.declare(BASE)
        embedded_fleet.bootstrap()
        done = embedded_fleet.playbook("rollout")
        assert done.returncode == 0, done.stdout[-3000:]
        yield embedded_fleet
    finally:
        embedded_fleet.remove()


def loaded_release(config: configuration.Config) -> str | None:
    loaded = status(config).service.loaded
    return loaded.release if loaded else None


def test_a_hundred_rollbacks_succeed_in_time(fleet: EmbeddedFleet, request: pytest.FixtureRequest) -> None:
    device = "canary-1"
    config = configuration.load(fleet.base / device / "etc/edge-agent/config.toml")
    bad = [f"pump@2.0.{number}" for number in range(5)]
    for release in bad:
        fleet.publish(release)
    fleet.publish("pump@2.1.0", fault=GARBAGE)
    archive = fleet.base / "push.tar"
    payload.write_archive(fleet.repository, [*bad, "pump@2.1.0"], archive)
    with tarfile.open(archive) as tar:
        tar.extractall(config.paths.state, filter="data")
    times, refused = [], 0

    for number in range(ROLLBACKS):
        if number % 10 == 9:  # one that the self-test refuses: there is nothing to roll back
            try:
                operations.deploy(config, "pump@2.1.0")
            except AgentError:
                refused += 1
            operations.forget(config, "pump@2.1.0")
        release = bad[number % len(bad)]
        switched = operations.deploy(config, release)
        assert switched.changed
        assert loaded_release(config) == release
        began = time.monotonic()
        result = switching.rollback(config, BASE, f"injected fault {number}")
        times.append(time.monotonic() - began)
        assert result.changed and result.left == release
        assert loaded_release(config) == BASE
        assert release in status(config).bad
        operations.forget(config, release)

    assert len(times) == ROLLBACKS and refused == ROLLBACKS // 10
    assert max(times) <= AIM_S
    summary = (
        f"{ROLLBACKS} bad releases on a simulated device, all rolled back: median {statistics.median(times):.2f} s, "
    )
    request.node.user_properties.append(
        ("measured", f"{summary}worst {max(times):.2f} s; {refused} more refused before the switch")
    )


def test_a_hundred_bad_rollouts_are_rolled_back(fleet: EmbeddedFleet, request: pytest.FixtureRequest) -> None:
    """Run whole playbooks: the canary refuses the release, or the second or third wave has a worn card."""
    durations, rollback_durations, devices_rolled_back = [], [], 0
    fleet.set_policy(bake_s=2.0)  # long enough for the trial to end, also on a busy machine
    program = fleet.base / "worn-agent"
    agent = Path(sys.executable).with_name("edge-agent")
    program.write_text(f'#!/bin/sh\nEDGE_AGENT_FAULT=install.before_rename=error exec {agent} "$@"\n')
    program.chmod(0o755)
    for number in range(ROLLOUTS):
        switched = number % len(fleet.names)  # the number of devices before the fault
        release = f"pump@3.0.{number}"
        fleet.publish(release, **({} if switched else {"fault": GARBAGE}))
        fleet.declare(release)
        if switched:
            fleet.write(f"host_vars/{fleet.names[switched]}.yml", {"edge_agent_binary": str(program)})
        began = time.monotonic()
        done = fleet.playbook("rollout")
        durations.append(time.monotonic() - began)
        assert done.returncode == 2, done.stdout[-3000:]
        record = fleet.record()
        assert record["status"] == "failed"
        outcomes = [record["devices"][name]["outcome"] for name in fleet.names]
        assert outcomes == ["back"] * (switched + 1) + ["planned"] * (2 - switched), record
        assert record["devices"][fleet.names[switched]]["spent"] == "failed"
        assert set(fleet.running().values()) == {BASE}
        devices_rolled_back += switched
        if switched:
            lines = (record["folder"] / "audit.jsonl").read_text().splitlines()
            seconds = rollback_seconds([json.loads(line) for line in lines])
            assert seconds is not None
            rollback_durations.append(seconds)
    summary = (
        f"{ROLLOUTS} bad rollouts over 3 simulated devices, all ended on the previous release, "
        f"{devices_rolled_back} devices had switched and were rolled back: "
        f"median {statistics.median(durations):.0f} s, worst {max(durations):.0f} s in all; "
        f"from the verdict to the last rollback median {statistics.median(rollback_durations):.0f} s, "
        f"worst {max(rollback_durations):.0f} s"
    )
    request.node.user_properties.append(("measured", summary))
