"""Rollouts over simulated devices: a wave that fails in a long bake, and devices that cannot be rolled back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet.releases.repository import Repository
from tests.support.fleet.embedded import EmbeddedFleet

pytestmark = pytest.mark.slow
CANARY, REST = "canary-1", ("rest-1", "rest-2")
WAVES = [{"name": "canary", "group": "canaries"}, {"name": "rest", "rest": True}]
BASE = "pump@1.0.0"
BAKE_S, EARLY_S = 4 * 3600, 300


@pytest.fixture(scope="module")
def shared_fleet() -> Iterator[EmbeddedFleet]:
    """Three devices in two waves that ran BASE without faults through a bake of several polls."""
    fleet = EmbeddedFleet((CANARY, *REST))
    try:
        fleet.publish(BASE)
        fleet.declare(BASE)
        fleet.set_policy(waves=WAVES, bake_s=3.0, bake_poll_s=1.0)
        fleet.bootstrap()
        assert fleet.run("rollout").returncode == 0
        yield fleet
    finally:
        fleet.remove()


@pytest.fixture
def fleet(shared_fleet: EmbeddedFleet) -> EmbeddedFleet:
    shared_fleet.reset_to(BASE)
    shared_fleet.set_policy(waves=WAVES, bake_s=BAKE_S, bake_poll_s=0.5)
    return shared_fleet


def begin_rollout(fleet: EmbeddedFleet, release: str) -> subprocess.Popen[str]:
    """Start a rollout of `release` and return when its canary runs it, in the bake."""
    fleet.publish(release)
    fleet.declare(release)
    program = fleet.command("rollout")
    process = subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=fleet.environment()
    )
    fleet.wait_for(CANARY, release)
    return process


def audit_events(fleet: EmbeddedFleet) -> list[str]:
    """Return the audit events of the latest rollout, as "action result device"."""
    lines = (fleet.record()["folder"] / "audit.jsonl").read_text().splitlines()
    return [
        " ".join(filter(None, (event["action"], event["result"], event["device"]))) for event in map(json.loads, lines)
    ]


def configuration(fleet: EmbeddedFleet, device: str) -> Path:
    return fleet.base / device / "etc/edge-agent/config.toml"


def test_a_canary_that_fails_in_a_long_bake_is_rolled_back_at_once(fleet: EmbeddedFleet) -> None:
    process = begin_rollout(fleet, "pump@2.0.0")
    began = time.monotonic()
    fleet.process(CANARY, "stop")
    fleet.process(CANARY, "start")

    output, _ = process.communicate(timeout=EARLY_S)

    assert process.returncode == 2, output[-3000:]
    assert time.monotonic() - began < EARLY_S, f"and not after {BAKE_S} s"
    assert fleet.running() == {CANARY: BASE, **dict.fromkeys(REST, BASE)}
    record = fleet.record()
    assert record["status"] == "failed"
    assert "cut short after" in record["reason"] and "1 restart(s) since the switch" in record["reason"]
    assert {"watch lost", "judge fail", f"back back {CANARY}"} <= set(audit_events(fleet))


def withdraw(fleet: EmbeddedFleet, release: str) -> None:
    command = [sys.executable, "-m", "fleet", "release", "withdraw", release, "--reason", "burns"]
    subprocess.run([*command, "--repository", fleet.base / "releases"], check=True, env=fleet.environment())
    fleet.repository = Repository(fleet.base / "releases", fleet.keys)


@pytest.mark.exhaustive
def test_a_release_withdrawn_during_the_canary_bake_reaches_no_other_device(fleet: EmbeddedFleet) -> None:
    release = "pump@2.5.0"
    fleet.set_policy(waves=WAVES, bake_s=15, bake_poll_s=0.5)
    fleet.publish(release)
    fleet.declare(release)
    with ThreadPoolExecutor(1) as pool:
        rollout = pool.submit(fleet.run, "rollout")
        fleet.wait_for(CANARY, release)
        withdraw(fleet, release)
        done = rollout.result(EARLY_S)

    assert done.returncode == 11, done.stderr
    assert f"{release}: withdrawn: burns" in json.loads(done.stdout)["reason"]
    assert fleet.running() == {CANARY: release, **dict.fromkeys(REST, BASE)}, "no device is rolled back or updated"
    assert {"judge pass", "pause paused"} <= set(audit_events(fleet)) and audit_events(fleet)[-1] == "close paused"
    assert {name: fleet.record()["devices"][name]["outcome"] for name in REST} == dict.fromkeys(REST, "planned")

    again = fleet.run("rollout")

    assert again.returncode == 6 and "declare a different release" in json.loads(again.stdout)["remedy"]
    assert fleet.running() == {CANARY: release, **dict.fromkeys(REST, BASE)}


@pytest.mark.exhaustive
def test_a_pending_rollback_is_made_first_in_the_next_run(fleet: EmbeddedFleet) -> None:
    """The inventory still declares the failed release: it is refused, and the device is rolled back."""
    process = begin_rollout(fleet, "pump@3.0.0")
    file = configuration(fleet, CANARY)
    moved_file = file.rename(file.with_suffix(".away"))
    output, _ = process.communicate(timeout=EARLY_S)
    assert process.returncode == 2, output[-3000:]
    failed = fleet.record()["folder"]
    assert f"back pending {CANARY}" in audit_events(fleet)

    moved_file.rename(file)
    assert fleet.running() == {CANARY: "pump@3.0.0", **dict.fromkeys(REST, BASE)}, (
        "the device still runs the failed release"
    )

    done = fleet.run("rollout")

    assert done.returncode == 10, done.stderr
    reason = json.loads(done.stdout)["found"]
    assert "failed in rollout" in reason and f"back: {CANARY}: runs {BASE}" in reason
    assert fleet.running() == {CANARY: BASE, **dict.fromkeys(REST, BASE)}
    assert "pump@3.0.0" in fleet.state_of(CANARY).bad
    assert fleet.record()["folder"] == failed, "no new rollout has begun"
    assert audit_events(fleet)[-1] == f"back back {CANARY}"
    assert fleet.record()["devices"][CANARY]["outcome"] == "back"
