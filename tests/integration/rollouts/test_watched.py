"""Rollouts over simulated devices: a wave that turns bad in a long bake, and devices that cannot be called back."""

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
def made() -> Iterator[EmbeddedFleet]:
    """Three devices in two waves, which ran BASE well at each of several looks."""
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
def fleet(made: EmbeddedFleet) -> EmbeddedFleet:
    made.reset_to(BASE)
    made.set_policy(waves=WAVES, bake_s=BAKE_S, bake_poll_s=0.5)
    return made


def begin(fleet: EmbeddedFleet, release: str) -> subprocess.Popen[str]:
    """A rollout whose canary runs `release`, and is watched."""
    fleet.publish(release)
    fleet.declare(release)
    program = fleet.command("rollout")
    process = subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=fleet.environment()
    )
    fleet.wait_for(CANARY, release)
    return process


def trail(fleet: EmbeddedFleet) -> list[str]:
    """The latest rollout's lines, as "action result device"."""
    lines = (fleet.record()["folder"] / "audit.jsonl").read_text().splitlines()
    return [" ".join(filter(None, (said["action"], said["result"], said["device"]))) for said in map(json.loads, lines)]


def configuration(fleet: EmbeddedFleet, device: str) -> Path:
    return fleet.base / device / "etc/edge-agent/config.toml"


def test_a_canary_that_turns_bad_in_a_long_bake_goes_back_at_once(fleet: EmbeddedFleet) -> None:
    process = begin(fleet, "pump@2.0.0")
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
    assert {"watch lost", "judge fail", f"back back {CANARY}"} <= set(trail(fleet))


def withdraw(fleet: EmbeddedFleet, release: str) -> None:
    command = [sys.executable, "-m", "fleet", "release", "withdraw", release, "--reason", "burns"]
    subprocess.run([*command, "--repository", fleet.base / "releases"], check=True, env=fleet.environment())
    fleet.repository = Repository(fleet.base / "releases", fleet.keys)


@pytest.mark.exhaustive
def test_what_is_withdrawn_while_a_canary_bakes_goes_no_further(fleet: EmbeddedFleet) -> None:
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
    assert fleet.running() == {CANARY: release, **dict.fromkeys(REST, BASE)}, "nothing goes back, and nothing on"
    assert {"judge pass", "pause paused"} <= set(trail(fleet)) and trail(fleet)[-1] == "close paused"
    assert {name: fleet.record()["devices"][name]["outcome"] for name in REST} == dict.fromkeys(REST, "planned")

    again = fleet.run("rollout")

    assert again.returncode == 6 and "declare another one" in json.loads(again.stdout)["remedy"]
    assert fleet.running() == {CANARY: release, **dict.fromkeys(REST, BASE)}


@pytest.mark.exhaustive
def test_who_could_not_be_called_back_is_before_anything_else_next_time(fleet: EmbeddedFleet) -> None:
    """The inventory still declares what failed: it is refused, and the device does not stay on it."""
    process = begin(fleet, "pump@3.0.0")
    file = configuration(fleet, CANARY)
    away = file.rename(file.with_suffix(".away"))
    output, _ = process.communicate(timeout=EARLY_S)
    assert process.returncode == 2, output[-3000:]
    failed = fleet.record()["folder"]
    assert f"back pending {CANARY}" in trail(fleet)

    away.rename(file)
    assert fleet.running() == {CANARY: "pump@3.0.0", **dict.fromkeys(REST, BASE)}, "it went on with what failed"

    done = fleet.run("rollout")

    assert done.returncode == 10, done.stderr
    found = json.loads(done.stdout)["found"]
    assert "failed in rollout" in found and f"back: {CANARY}: runs {BASE}" in found
    assert fleet.running() == {CANARY: BASE, **dict.fromkeys(REST, BASE)}
    assert "pump@3.0.0" in fleet.state_of(CANARY).bad
    assert fleet.record()["folder"] == failed, "no new rollout has begun"
    assert trail(fleet)[-1] == f"back back {CANARY}"
    assert fleet.record()["devices"][CANARY]["outcome"] == "back"
