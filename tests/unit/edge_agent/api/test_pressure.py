"""Demanding requests: none blocks the requests of other clients or causes a rollback of a good release."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_agent.api import http_server
from edge_agent.core.config import Serve, TrialRules
from edge_agent.inference.engine import Engine, OverloadedError, TooManySamplesError
from edge_agent.inference.model import InputError, OutputError
from edge_agent.lifecycle import trial_rules
from edge_agent.monitoring.health import Health
from edge_agent.monitoring.service_statistics import ServiceStatistics

from tests.support.agent.http_server import serving
from tests.support.agent.serving import Backend, behaving, device, installed, run

SHAPE = (2, 16)
HUGE = np.full((1, *SHAPE), 3e38, np.float32)
RULES = TrialRules(seconds=0, inferences=20)


def ones(count: int) -> np.ndarray:
    return np.ones((count, *SHAPE), np.float32)


def zeros(x: np.ndarray) -> np.ndarray:
    return np.zeros((len(x), 3), np.float32)


def test_values_that_overflow_the_model_do_not_count_against_the_release(tmp_path: Path) -> None:
    """3e38 is a finite float32, but the sum of a few of them is not."""
    config = device(tmp_path)
    loaded = installed(config)
    statistics = ServiceStatistics(config)

    async def main() -> None:
        engine = Engine(config.serve)
        statistics.attach(engine)
        health = Health(engine, 10.0, RULES.error_share)
        await engine.swap(loaded)
        for _ in range(30):
            with pytest.raises(InputError, match=r"no finite result for this input: found a value of 3e\+38"):
                await engine.predict(HUGE)
            await engine.predict(loaded.golden_inputs[:1])
        assert trial_rules.decide(RULES, health.observation()).action == "confirm"
        await engine.close()

    run(main)
    assert statistics.report()["errors"] == 0


def test_extreme_values_are_the_clients_fault(tmp_path: Path) -> None:
    config = device(tmp_path)
    with serving(config, installed(config)) as agent:
        answer = agent.ask("POST", "/predict", {"inputs": HUGE.tolist()})
        assert answer.status == 422
        assert "no finite result for this input" in answer.json["detail"]


@pytest.mark.parametrize("x", [ones(1), HUGE], ids=["near", "far"])
def test_a_model_that_fails_its_golden_samples_too_is_at_fault(tmp_path: Path, x: np.ndarray) -> None:
    config = device(tmp_path)
    loaded = behaving(installed(config), Backend(lambda x: np.full((len(x), 3), np.nan, np.float32)))
    failed: list[Any] = []

    async def main() -> None:
        engine = Engine(config.serve)
        engine.failure_observers.append(lambda *failure: failed.append(failure))
        await engine.swap(loaded)
        with pytest.raises(OutputError):
            await engine.predict(x)
        await engine.close()

    run(main)
    assert [(type(error), own, samples) for error, own, samples in failed] == [(OutputError, loaded, 1)]


def test_a_request_larger_than_the_queue_is_refused(tmp_path: Path) -> None:
    config = device(tmp_path, serve={"queue": 4})
    loaded = installed(config)

    async def main() -> None:
        engine = Engine(config.serve)
        await engine.swap(loaded)
        with pytest.raises(TooManySamplesError, match="found 5 samples, expected at most 4 in one request"):
            await engine.predict(ones(5))
        first = asyncio.ensure_future(engine.predict(ones(3)))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="3 samples are waiting; this request would exceed the limit of 4"):
            await engine.predict(ones(2))
        assert len((await first).probabilities) == 3
        await engine.close()

    run(main)
    with serving(config, loaded) as agent:
        assert agent.ask("POST", "/predict", {"inputs": ones(5).tolist()}).status == 413


@pytest.mark.parametrize(("batch", "turns"), [(1, [1] * 12), (None, [4, 2, 4, 2])])
def test_a_large_request_yields_to_others(tmp_path: Path, batch: int | None, turns: list[int]) -> None:
    backend = Backend(zeros, batch=batch, held=True)
    loaded = behaving(installed(device(tmp_path)), backend)
    order: list[str] = []

    async def main() -> None:
        engine = Engine(Serve(batch=4))
        await engine.swap(loaded)

        async def ask(name: str, x: np.ndarray) -> None:
            assert len((await engine.predict(x)).probabilities) == len(x)
            order.append(name)

        large = asyncio.ensure_future(ask("large", ones(10)))
        assert await asyncio.to_thread(backend.entered.wait, 30)
        small = asyncio.ensure_future(ask("small", ones(1)))
        probe = asyncio.ensure_future(engine.probe())
        await asyncio.sleep(0)
        backend.go.set()
        await asyncio.gather(large, small, probe)
        await engine.close()

    run(main)
    assert order == ["small", "large"]
    assert backend.sizes == turns


def test_a_large_request_that_takes_too_long_is_not_the_models_failure(tmp_path: Path) -> None:
    """Each turn is fast, but there are too many."""
    backend = Backend(zeros, batch=1)
    loaded = behaving(installed(device(tmp_path)), backend)
    failed: list[Any] = []

    async def main() -> None:
        engine = Engine(Serve(request_timeout_s=0.2, queue=10**6))
        engine.failure_observers.append(lambda *failure: failed.append(failure))
        await engine.swap(loaded)
        with pytest.raises(OverloadedError, match="of 200000 samples were computed within"):
            await engine.predict(ones(200_000))
        assert len((await engine.predict(ones(1))).probabilities) == 1
        assert failed == []
        while engine.waiting:  # released at the request's next turn
            await asyncio.sleep(0)
        await engine.close()

    run(main)


def test_late_failures_of_the_previous_release_do_not_count_for_the_next(tmp_path: Path) -> None:
    good = installed(device(tmp_path))
    backend = Backend(lambda x: np.full((len(x), 3), np.nan, np.float32), held=True)

    async def main() -> None:
        engine = Engine(Serve())
        health = Health(engine, 10.0, 0.01)
        await engine.swap(behaving(good, backend))
        pending = [asyncio.ensure_future(engine.predict(ones(1))) for _ in range(20)]
        assert await asyncio.to_thread(backend.entered.wait, 30)
        swapping = asyncio.ensure_future(engine.swap(good))
        await asyncio.sleep(0)
        backend.go.set()
        await swapping
        assert {type(answer) for answer in await asyncio.gather(*pending, return_exceptions=True)} == {OutputError}
        observation = health.observation()
        assert (observation.answered, observation.errors) == (0, 0)
        assert observation.healthy_s == observation.loaded_s
        await health.probe()
        assert health.condition().healthy
        await engine.close()

    run(main)


def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS", 3)
    config = device(tmp_path)
    with serving(config, installed(config)) as agent, contextlib.ExitStack() as stack:
        held = [http.client.HTTPConnection("127.0.0.1", agent.port, timeout=30) for _ in range(3)]
        for connection in held:
            stack.callback(connection.close)
            connection.request("GET", "/readyz")
            assert connection.getresponse().read()
        refused = agent.ask("GET", "/readyz")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        held[0].close()
        while agent.ask("GET", "/readyz").status != 200:
            pass
        held[1].request("GET", "/readyz")
        assert held[1].getresponse().status == 200
