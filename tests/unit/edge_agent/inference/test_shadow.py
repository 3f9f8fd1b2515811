"""A candidate beside the current release: what is compared, and that the live path does not notice."""

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


def test_nothing_seen_is_nothing_known() -> None:
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
    while (found := shadow.summary())["ended"] is None:
        await asyncio.sleep(0)
    return found


def test_agreement_is_counted_until_enough_was_seen(current: LoadedRelease) -> None:
    answers = Backend(lambda x: np.stack([x.sum(axis=(1, 2)), np.full(len(x), 0.5), -np.ones(len(x))], 1))
    shadow = Shadow(behaving(current, answers, NEW), current, samples=40, seconds=60)

    async def main() -> None:
        async with serving(current, shadow) as engine:
            for number in range(40):
                await engine.predict(X + (number % 4 != 0))  # a quarter of them is the second class to the candidate
            found = await ended(shadow)

        assert found["ended"] == "40 samples were compared"
        assert (found["samples"], found["dropped"], found["errors"]) == (40, 0, 0)
        agreement = found["agreement"]
        assert agreement["share"] == 0.75
        assert (agreement["low"], agreement["high"]) == wilson(30, 40)

    run(main)


def test_what_the_candidate_fails_is_an_error_and_no_disagreement(current: LoadedRelease) -> None:
    shadow = Shadow(behaving(current, logits(float("nan"), 0, 0), NEW), current, samples=3, seconds=60)

    async def main() -> None:
        async with serving(current, shadow) as engine:
            for _ in range(3):
                assert (await engine.predict(X)).release == OLD
            found = await ended(shadow)

        assert (found["samples"], found["errors"]) == (3, 3)
        assert found["agreement"]["share"] is None

    run(main)


def test_a_candidate_that_hangs_costs_the_live_path_nothing(current: LoadedRelease) -> None:
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


def test_it_ends_when_time_is_over_or_another_release_takes_over(current: LoadedRelease) -> None:
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
def made(tmp_path: Path) -> Iterator[Device]:
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
    """`edge-agent shadow`, when the service has begun to compare."""
    process = subprocess.Popen(
        device.command("--json", "shadow", NEW, *arguments), stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
    )
    served.wait_for(f"comparing {NEW} with {OLD}")
    return process


@pytest.mark.slow
def test_the_command_waits_for_the_samples_and_prints_them(made: Device) -> None:
    with made.serving() as served:
        served.ready()
        process = start(made, served, "--samples", "5")
        ask(made, 5)
        told = json.loads(process.communicate(timeout=60)[0])
        OUTPUT.validate(told)

    assert (told["release"], told["current"], told["samples"]) == (NEW, OLD, 5)
    assert told["agreement"]["share"] in (0.0, 1.0)  # five times the same input
    assert 0 < told["latency_ms"]["candidate"]["p50"] <= told["latency_ms"]["candidate"]["p95"]
    assert made.state.current == OLD


@pytest.mark.slow
def test_it_ends_when_the_command_goes_away(made: Device) -> None:
    with made.serving() as served:
        served.ready()
        process = start(made, served)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        served.wait_for("the caller disconnected")


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused(made: Device) -> None:
    assert "no service runs" in made.json("shadow", NEW, code=ServiceError.exit_code)["found"]
    with made.serving() as served:
        served.ready()
        assert "is loaded" in made.json("shadow", OLD, code=ServiceError.exit_code)["found"]
        made.json("shadow", "pump@9.0.0", code=NoReleaseError.exit_code)
