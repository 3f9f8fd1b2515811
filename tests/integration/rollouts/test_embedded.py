"""Rollouts over simulated devices of this machine, with real agents, playbooks and releases."""

from __future__ import annotations

import json
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fleet.releases.rotation import rotate
from tests.support.fleet.embedded import (
    CANARY,
    EARLY,
    REST,
    UNREACHABLE,
    WAIT_S,
    EmbeddedFleet,
    all_run,
    changed,
)

pytestmark = pytest.mark.slow


def outcomes(record: dict[str, Any]) -> dict[str, str]:
    return {name: device["outcome"] for name, device in record["devices"].items()}


def test_the_first_release_is_rolled_out_in_waves_and_a_second_run_changes_nothing(fleet: EmbeddedFleet) -> None:
    assert fleet.first.returncode == 0, fleet.first.stdout[-3000:]
    record = fleet.record(0)
    assert [(wave["name"], wave["status"]) for wave in record["waves"]] == [
        ("canary", "pass"),
        ("early", "pass"),
        ("rest", "pass"),
    ]
    assert all_run(fleet, "pump@1.0.0")
    plan = json.loads((record["folder"] / "plan.json").read_text())
    expected = plan["releases"]["pump@1.0.0"]["targets"]["onnx-fp32"]
    for name in fleet.names:
        status = fleet.agent(name, "status")
        assert status["service"]["loaded"]["sha256"] == expected, "the published model is loaded"
        assert status["trial"] is None, "confirmed"

    again = fleet.playbook("rollout")

    assert again.returncode == 0, again.stdout[-3000:]
    assert changed(again) == 0
    assert fleet.record(-1)["folder"] == record["folder"], "a run without changes is not recorded"


def test_check_predicts_the_rollout_and_changes_nothing(fleet: EmbeddedFleet) -> None:
    fleet.publish("pump@1.1.0")
    fleet.declare("pump@1.1.0")
    before = fleet.record()["folder"]

    done = fleet.run("rollout", "--check")

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], result["check"]) == ("ready", True)
    assert "  rest-1: pump@1.0.0 -> pump@1.1.0" in result["table"]
    assert all_run(fleet, "pump@1.0.0") and fleet.record()["folder"] == before


def test_a_release_that_fails_on_the_canary_reaches_no_other_device(fleet: EmbeddedFleet) -> None:
    fleet.publish("pump@2.0.0", wrong_golden=True)
    fleet.declare("pump@2.0.0")

    done = fleet.run("rollout")

    assert done.returncode == 10, done.stderr
    assert "golden sample" in json.loads(done.stdout)["reason"]
    assert all_run(fleet, "pump@1.0.0")
    assert outcomes(fleet.record()) == {CANARY: "back", EARLY: "planned", REST: "planned"}

    again = fleet.run("rollout")

    assert again.returncode == 10 and "failed in rollout" in json.loads(again.stdout)["found"]
    retried = fleet.run("rollout", "--again")
    assert retried.returncode == 10 and "golden sample" in json.loads(retried.stdout)["reason"], (
        "the release was tried again"
    )


@pytest.mark.exhaustive
def test_too_little_evidence_pauses_the_rollout_and_later_evidence_rolls_it_back(fleet: EmbeddedFleet) -> None:
    """A slow model passes every test on the device. The fleet's judge detects it and rolls it back."""
    fleet.set_policy(judge={"min_inferences": 5, "latency_factor": 3.0, "memory_growth_mb": 1000.0})
    fleet.predict(CANARY, 20)
    fleet.publish("pump@3.0.0", fault="slow")
    fleet.declare("pump@3.0.0")

    paused = fleet.run("rollout")

    assert paused.returncode == 11, paused.stderr
    assert "0 inferences" in json.loads(paused.stdout)["reason"]
    assert fleet.running() == {CANARY: "pump@3.0.0", EARLY: "pump@1.0.0", REST: "pump@1.0.0"}, (
        "nothing is rolled back yet"
    )

    fleet.predict(CANARY, 10)
    done = fleet.run("rollout", "--resume")

    assert done.returncode == 10, done.stderr
    assert "latency" in json.loads(done.stdout)["reason"]
    assert all_run(fleet, "pump@1.0.0")
    assert outcomes(fleet.record())[CANARY] == "back"
    assert "rollout" in fleet.state_of(CANARY).bad["pump@3.0.0"]


def test_a_canary_that_does_not_answer_stops_the_rollout(fleet: EmbeddedFleet) -> None:
    fleet.publish("pump@4.0.0")
    fleet.declare("pump@4.0.0")
    fleet.write(f"host_vars/{CANARY}.yml", UNREACHABLE)

    done = fleet.run("rollout")

    assert done.returncode == 11, done.stderr
    assert CANARY in json.loads(done.stdout)["found"]
    assert all_run(fleet, "pump@1.0.0")


@pytest.mark.exhaustive
def test_a_failed_device_ends_the_rollout_only_beyond_the_failure_budget(fleet: EmbeddedFleet) -> None:
    """A device that cannot install fails to switch; the other devices switch."""
    fleet.publish("pump@5.0.0")
    fleet.declare("pump@5.0.0")
    fleet.set_policy(budget={"failed": 1})
    broken = fleet.break_install(REST)

    within = fleet.run("rollout")

    assert within.returncode == 0, within.stderr
    assert fleet.running() == {CANARY: "pump@5.0.0", EARLY: "pump@5.0.0", REST: "pump@1.0.0"}
    assert outcomes(fleet.record())[REST] in ("back", "failed")

    fleet.publish("pump@5.1.0")
    fleet.declare("pump@5.1.0")
    fleet.set_policy(budget={"failed": 0})
    beyond = fleet.run("rollout")
    broken.unlink()

    assert beyond.returncode == 10, beyond.stderr
    assert fleet.running() == {CANARY: "pump@5.0.0", EARLY: "pump@5.0.0", REST: "pump@1.0.0"}, "as before the rollout"


def test_the_rollout_of_a_killed_controller_is_resumed_and_a_second_controller_is_refused(fleet: EmbeddedFleet) -> None:
    fleet.publish("pump@6.0.0")
    fleet.declare("pump@6.0.0")
    fleet.set_policy(bake_s=60)
    first = subprocess.Popen(
        fleet.command("rollout"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=fleet.environment()
    )
    try:
        fleet.wait_for(CANARY, "pump@6.0.0")
        second = fleet.run("rollout")
        assert second.returncode == 7, second.stderr
        assert f"process {first.pid}" in json.loads(second.stdout)["found"]
        bootstrap = fleet.playbook("bootstrap")
        assert bootstrap.returncode == 2 and f"process {first.pid}" in bootstrap.stdout, (
            "agents are not restarted during a rollout"
        )
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait(WAIT_S)
    interrupted = fleet.record()
    assert interrupted["waves"][0]["status"] == "open"

    plan = interrupted["folder"] / "plan.json"
    plan.write_text(plan.read_text().replace('"bake_s": 60.0', '"bake_s": 2.0'))
    done = fleet.run("rollout")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == interrupted["folder"].name, "the same rollout"
    assert all_run(fleet, "pump@6.0.0")


@pytest.mark.exhaustive
def test_a_wave_waits_for_approval_and_a_reverted_inventory_restores_the_old_release(fleet: EmbeddedFleet) -> None:
    fleet.publish("pump@7.0.0")
    fleet.declare("pump@7.0.0")
    fleet.set_policy(approve=["rest"])

    waiting = fleet.run("rollout")

    assert waiting.returncode == 11, waiting.stderr
    assert "--approve rest" in json.loads(waiting.stdout)["reason"]
    assert fleet.running()[REST] == "pump@1.0.0"

    done = fleet.run("rollout", "--approve", "rest")

    assert done.returncode == 0, done.stderr
    assert all_run(fleet, "pump@7.0.0")
    assert fleet.record()["waves"][2]["approved_by"]

    fleet.declare("pump@1.0.0")
    fleet.set_policy()
    reverted = fleet.run("rollout")

    assert reverted.returncode == 0, reverted.stderr
    assert all_run(fleet, "pump@1.0.0")


def test_outside_its_window_no_rollout_begins(fleet: EmbeddedFleet) -> None:
    fleet.publish("pump@8.0.0")
    fleet.declare("pump@8.0.0")
    later = datetime.now(UTC) + timedelta(hours=2)
    fleet.set_policy(window={"from": f"{later:%H:%M}", "until": f"{later + timedelta(hours=1):%H:%M}"})

    done = fleet.run("rollout")

    assert done.returncode == 11, done.stderr
    assert "rollout.window" in json.loads(done.stdout)["where"]
    assert all_run(fleet, "pump@1.0.0")


def test_devices_are_rolled_back_manually(fleet: EmbeddedFleet) -> None:
    fleet.publish("pump@9.0.0")
    fleet.declare("pump@1.0.0", **{REST.replace("-", "_"): "pump@9.0.0"})
    assert fleet.run("rollout", "--approve", "early").returncode == 0

    for limit in ("nobody", "nobody --check"):  # a single argument, even with a space
        refused = fleet.run("rollback", "--limit", limit, "--reason", "none")
        assert refused.returncode == 12 and limit in json.loads(refused.stdout)["found"]

    reason = "alert {{ $labels.instance }} fired {{ 7 * 7 }}"  # text, not a template
    done = fleet.run("rollback", "--limit", REST, "--reason", reason)

    assert done.returncode == 0, done.stderr
    assert all_run(fleet, "pump@1.0.0")
    assert fleet.state_of(REST).bad == {"pump@9.0.0": reason}

    fleet.agent(REST, "forget", "pump@9.0.0")
    fleet.agent(REST, "activate", "pump@9.0.0")
    done = fleet.playbook("rollback", "--limit", REST, reason=reason)

    assert done.returncode == 0, done.stdout[-3000:]
    assert fleet.state_of(REST).bad == {"pump@9.0.0": reason}


def test_rotated_keys_reach_the_devices_and_captured_samples_are_collected(fleet: EmbeddedFleet) -> None:
    before = fleet.agent(REST, "status")["service"]["loaded"]
    rotate(fleet.repository, "root")

    done = fleet.playbook("rotate-keys")

    assert done.returncode == 0, done.stdout[-3000:]
    for name in fleet.names:
        root = json.loads((fleet.base / name / "var/lib/edge-agent/tuf/root.json").read_text())
        assert root["signed"]["version"] == fleet.repository.root.version, "trusted before the next release"
    assert fleet.agent(REST, "status")["service"]["loaded"] == before

    done = fleet.playbook("collect-samples", "--limit", REST, samples_folder=str(fleet.base / "captured"))

    assert done.returncode == 0, done.stdout[-3000:]
    assert [file.name for file in (fleet.base / "captured").iterdir()] == [f"{REST}.jsonl"]


def test_the_log_of_a_devices_agent_is_printed(fleet: EmbeddedFleet) -> None:
    done = fleet.run("logs", REST, "--lines", "1000")

    assert done.returncode == 0, done.stderr
    text = json.loads(done.stdout)["text"]
    assert (fleet.base / REST / "agent.log").read_text().startswith(text), "from its first line"
    assert "event=loaded" in text and "release=pump@1.0.0" in text
