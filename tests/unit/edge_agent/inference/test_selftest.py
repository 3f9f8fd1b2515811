"""The self-test in its own process, with real model files that fail in different ways."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from edge_agent.core.config import SelfTest
from edge_agent.core.errors import SelfTestError
from edge_agent.inference import selftest

from tests.support.agent.bundles import CRASHING, GARBAGE, GREEDY, SAMPLES, SLOW
from tests.support.agent.cli import Device
from tests.support.agent.releases import Releases

pytestmark = pytest.mark.slow  # each starts the self-test's process

RELEASE = "pump@1.0.0"


def run(agent_device: Device, timeout_s: float = 60, target: str = "onnx-fp32") -> selftest.SelfTestResult:
    config = dataclasses.replace(agent_device.config, selftest=SelfTest(timeout_s=timeout_s, repeats=20))
    return selftest.run(config, RELEASE, target)


@pytest.fixture
def built(tmp_path: Path) -> Any:
    """A device with one release; the keywords are those of tests.support.agent.bundles.bundle."""
    devices: list[Device] = []

    def make(**changes: Any) -> Device:
        releases = Releases(tmp_path)
        releases.publish(RELEASE, **changes)
        agent_device = Device(tmp_path / "device", releases.repository)
        devices.append(agent_device)
        agent_device.json("install", RELEASE)
        return agent_device

    yield make
    for agent_device in devices:
        agent_device.remove()


@pytest.mark.parametrize("target", ["onnx-fp32", "tflite-int8"])
def test_a_good_release_is_replayed_and_measured(built: Any, target: str) -> None:
    result = run(built(targets=[target], budget={"latency_p95_ms": 1000.0, "memory_mb": 500.0}), target=target)

    assert result.target == target
    assert result.samples == SAMPLES
    assert result.max_difference <= result.tolerance
    assert 0 < result.latency_ms.p50 <= result.latency_ms.p95 <= result.latency_budget_ms
    assert result.memory_mb <= result.memory_budget_mb


@pytest.mark.parametrize(
    ("changes", "message", "expected"),
    [
        ({"wrong_golden": True}, "golden sample", "at most 0.0001"),
        ({"fault": GARBAGE}, "not loadable by ONNX Runtime", "a model that loads"),
        ({"fault": SLOW, "budget": {"latency_p95_ms": 0.5, "memory_mb": None}}, "latency p95", "at most 0.5 ms"),
        ({"fault": GREEDY, "budget": {"memory_mb": 100.0}}, "memory", "at most 100 MB"),
    ],
)
def test_an_exceeded_limit_is_reported(built: Any, changes: dict[str, Any], message: str, expected: str) -> None:
    with pytest.raises(SelfTestError) as refused:
        run(built(**changes))

    assert message in refused.value.found
    assert expected in refused.value.expected
    assert refused.value.where == f"{RELEASE} (onnx-fp32)"


def test_a_model_that_crashes_its_process_is_reported_with_the_signal(built: Any) -> None:
    agent_device = built(fault=CRASHING, targets=["tflite-int8"])

    with pytest.raises(SelfTestError) as refused:
        run(agent_device, target="tflite-int8")

    assert f"crashed its process ({signal.Signals.SIGSEGV.name})" in refused.value.found


def test_a_model_that_takes_too_long_is_stopped(built: Any) -> None:
    with pytest.raises(SelfTestError) as refused:
        run(built(fault=SLOW), timeout_s=0.05)

    assert refused.value.found == "no result after 0.05 s"


def test_a_release_that_fails_the_self_test_is_not_activated(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    releases.publish(RELEASE)
    releases.publish("pump@1.1.0", wrong_golden=True)
    agent_device = Device(tmp_path / "device", releases.repository)
    for command in (("install", RELEASE), ("activate", RELEASE), ("confirm", "--force"), ("install", "pump@1.1.0")):
        agent_device.json(*command)

    error = agent_device.json("activate", "pump@1.1.0", code=SelfTestError.exit_code)

    assert "golden sample" in error["found"]
    assert agent_device.state.current == RELEASE
    assert agent_device.state.bad == {}  # the result depends on the device's load: the self-test may be repeated
    agent_device.remove()


def test_the_measuring_process_reports_a_missing_runtime(built: Any) -> None:
    agent_device = built()
    bundle = agent_device.config.layout.bundle(RELEASE)
    target = json.loads((bundle / "manifest.json").read_text())["targets"]["onnx-fp32"]
    target["golden"]["outputs"] = "golden/inputs.npy"

    answer = selftest._measure({"bundle": str(bundle), "target": target, "repeats": 1, "joined": 16})

    assert "found outputs of shape (6, 3), expected (6, 2, 16)" in answer["failed"]


def test_no_runtime_keeps_or_sends_anything_about_the_device(built: Any, tmp_path: Path) -> None:
    """Imported alone, ONNX Runtime 1.32 leaves a device id and a queue of events below the home folder."""
    agent_device = built()
    home = tmp_path / "home"
    home.mkdir()
    script = f"""
from pathlib import Path
from edge_agent.core import config
from edge_agent.inference import loading
loading.load(config.load(Path({str(agent_device.file)!r})), {RELEASE!r})
"""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }

    subprocess.run([sys.executable, "-c", script], check=True, env={**kept, "HOME": str(home)})

    assert list(home.rglob("*")) == []
