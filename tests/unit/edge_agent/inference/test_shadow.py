"""A shadow comparison: its figures, and that it does not affect requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from edge_agent.core.config import Serve
from edge_agent.core.errors import NoReleaseError, ServiceError
from edge_agent.inference.engine import Engine
from edge_agent.inference.loading import LoadedRelease
from edge_agent.inference.shadow import QUEUE, Shadow, wilson

from tests.support.agent.bundles import SHAPE
from tests.support.agent.cli import OUTPUT, Device, ServiceProcess
from tests.support.agent.releases import Releases
from tests.support.agent.serving import Backend, behaving, device, installed, run

OLD, NEW = "pump@1.0.0", "pump@1.1.0"
X = np.zeros((1, *SHAPE), np.float32)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_that_of_the_literature(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_without_samples_is_the_whole_range() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def logits(*values: float) -> Backend:
    return Backend(lambda x: np.tile(np.array(values, np.float32), (len(x), 1)))


@pytest.fixture
def current(tmp_path: Path) -> LoadedRelease:
    return behaving(installed(device(tmp_path)), logits(1, 0, 0), OLD)


@contextlib.asynccontextmanager
async def serving(current: LoadedRelease, shadow: Shadow) -> AsyncIterator[Engine]:
    engine = Engine(Serve())
    engine.observers.append(shadow.observe)
    await engine.swap(current)
    yield engine
    shadow.end("the test is over")
    await engine.close()


async def ended(shadow: Shadow) -> dict[str, object]:
    while (summary := shadow.summary())["ended"] is None:
        await asyncio.sleep(0)
    return summary


def test_agreement_is_counted_up_to_the_number_of_samples(current: LoadedRelease) -> None:
    answers = Backend(lambda x: np.stack([x.sum(axis=(1, 2)), np.full(len(x), 0.5), -np.ones(len(x))], 1))
    shadow = Shadow(behaving(current, answers, NEW), current, samples=40, seconds=60)

    async def main() -> None:
        async with serving(current, shadow) as engine:
            for number in range(40):
                await engine.predict(
                    X + (number % 4 != 0)
                )  # the candidate predicts the second class for a quarter of them
            summary = await ended(shadow)

        assert summary["ended"] == "40 samples were compared"
        assert (summary["samples"], summary["dropped"], summary["errors"]) == (40, 0, 0)
        agreement = summary["agreement"]
        assert agreement["share"] == 0.75
        assert (agreement["low"], agreement["high"]) == wilson(30, 40)

    run(main)


def test_a_failure_of_the_candidate_is_an_error_and_not_a_disagreement(current: LoadedRelease) -> None:
    shadow = Shadow(behaving(current, logits(float("nan"), 0, 0), NEW), current, samples=3, seconds=60)

    async def main() -> None:
        async with serving(current, shadow) as engine:
            for _ in range(3):
                assert (await engine.predict(X)).release == OLD
            summary = await ended(shadow)

        assert (summary["samples"], summary["errors"]) == (3, 3)
        assert summary["agreement"]["share"] is None

    run(main)


def test_a_candidate_that_hangs_does_not_delay_requests(current: LoadedRelease) -> None:
    held = Backend(lambda x: np.zeros((len(x), 3), np.float32), held=True)
    shadow = Shadow(behaving(current, held, NEW), current, samples=1000, seconds=60)

    async def main() -> None:
        async with serving(current, shadow) as engine:
            await engine.predict(X)
            held.entered.wait(30)
            for _ in range(QUEUE + 10):
                assert (await engine.predict(X)).release == OLD
            assert shadow.summary()["dropped"] == 10
            held.go.set()

    run(main)


def test_it_ends_at_the_time_limit_or_when_another_release_takes_over(current: LoadedRelease) -> None:
    async def main() -> None:
        shadow = Shadow(behaving(current, logits(1, 0, 0), NEW), current, samples=9, seconds=0.01)
        assert (await ended(shadow))["ended"] == "the time limit of 0.01 s is reached"

        shadow = Shadow(behaving(current, logits(1, 0, 0), NEW), current, samples=9, seconds=60)
        async with serving(current, shadow) as engine:
            await engine.swap(behaving(current, logits(1, 0, 0), "pump@3.0.0"))
            await engine.predict(X)
            assert shadow.summary()["ended"] == "pump@3.0.0 took over from pump@1.0.0"

    run(main)


# --- through the command line and the service


@pytest.fixture
def agent_device(tmp_path: Path) -> Iterator[Device]:
    releases = Releases(tmp_path)
    releases.publish(OLD, seed=1)
    releases.publish(NEW, seed=2)
    device = Device(tmp_path / "device", releases.repository)
    for command in (("install", OLD), ("activate", OLD), ("confirm", "--force"), ("install", NEW)):
        device.json(*command)
    yield device
    device.remove()


def ask(device: Device, times: int) -> None:
    body = json.dumps({"inputs": [[[0.1] * 16] * 2]})
    url = ["--unix-socket", str(device.socket), "http://agent/predict"]
    for _ in range(times):
        subprocess.run(
            ["curl", "-sf", *url, "-H", "Content-Type: application/json", "-d", body], check=True, capture_output=True
        )


def start(device: Device, served: ServiceProcess, *arguments: str) -> subprocess.Popen[str]:
    """Start `edge-agent shadow` and wait until the service compares."""
    process = subprocess.Popen(
        device.command("--json", "shadow", NEW, *arguments), stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
    )
    served.wait_for(f"comparing {NEW} with {OLD}")
    return process


@pytest.mark.slow
def test_the_command_waits_for_the_samples_and_prints_them(agent_device: Device) -> None:
    with agent_device.serving() as served:
        served.ready()
        process = start(agent_device, served, "--samples", "5")
        ask(agent_device, 5)
        result = json.loads(process.communicate(timeout=60)[0])
        OUTPUT.validate(result)

    assert (result["release"], result["current"], result["samples"]) == (NEW, OLD, 5)
    assert result["agreement"]["share"] in (0.0, 1.0)  # the same input five times
    assert 0 < result["latency_ms"]["candidate"]["p50"] <= result["latency_ms"]["candidate"]["p95"]
    assert agent_device.state.current == OLD


@pytest.mark.slow
def test_it_ends_when_the_command_ends(agent_device: Device) -> None:
    with agent_device.serving() as served:
        served.ready()
        process = start(agent_device, served)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        served.wait_for("the caller disconnected")


@pytest.mark.slow
def test_an_impossible_comparison_is_refused(agent_device: Device) -> None:
    assert "no service is running" in agent_device.json("shadow", NEW, code=ServiceError.exit_code)["found"]
    with agent_device.serving() as served:
        served.ready()
        assert "is the loaded release" in agent_device.json("shadow", OLD, code=ServiceError.exit_code)["found"]
        agent_device.json("shadow", "pump@9.0.0", code=NoReleaseError.exit_code)
