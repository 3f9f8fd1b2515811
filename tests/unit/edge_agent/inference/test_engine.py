"""The engine: one model, one thread, one bounded queue; no request is lost when releases change."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_agent.core.config import Config
from edge_agent.inference.engine import Engine, LoadedRelease, NotLoadedError, OverloadedError, TimedOutError, load
from edge_agent.inference.model import InputError, ModelError, OutputError

from tests.support.agent.serving import RELEASE, Backend, behaving, device, installed, run

SHAPE = (2, 16)
RNG = np.random.default_rng(7)


def samples(count: int) -> np.ndarray:
    return RNG.normal(size=(count, *SHAPE)).astype(np.float32)


def means(x: np.ndarray) -> np.ndarray:
    """Logits that identify the input they belong to."""
    mean = x.reshape(len(x), -1).mean(axis=1)
    return np.stack([mean, -mean, 0 * mean], axis=1)


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)


def test_answers_are_those_of_the_model(settings: Config, loaded: LoadedRelease) -> None:
    x = samples(5)

    async def main() -> None:
        engine = Engine(settings.serve)
        with pytest.raises(NotLoadedError):
            await engine.predict(x)
        await engine.swap(loaded)
        answer = await engine.predict(x)
        await engine.close()
        np.testing.assert_array_equal(answer.probabilities, loaded.model.predict(x))
        assert (answer.release, answer.target, answer.sha256) == (RELEASE, "onnx-fp32", loaded.sha256)
        assert answer.latency_s > 0
        assert answer.queue_s > 0
        assert engine.loaded is None

    run(main)


def test_waiting_requests_run_together_and_invalid_input_is_not_queued(settings: Config, loaded: LoadedRelease) -> None:
    backend = Backend(means, held=True)
    xs = [samples(1) for _ in range(20)]
    bad = [np.zeros((1, 3), np.float32), np.full((1, *SHAPE), np.nan, np.float32), np.zeros((1, *SHAPE))]

    async def main() -> None:
        engine = Engine(settings.serve)
        await engine.swap(behaving(loaded, backend))
        pending = [asyncio.ensure_future(engine.predict(xs[0]))]
        await until(backend.entered)
        pending += [asyncio.ensure_future(engine.predict(x)) for x in xs[1:]]
        for x in bad:
            with pytest.raises(InputError):
                await engine.predict(x)
        backend.go.set()
        answers = await asyncio.gather(*pending)
        for x, answer in zip(xs, answers, strict=True):
            assert answer.probabilities.shape == (1, 3)
            expected = np.exp(means(x)) / np.exp(means(x)).sum()
            np.testing.assert_allclose(answer.probabilities, expected, rtol=1e-5)
        await engine.close()

    run(main)
    assert backend.sizes == [1, 16, 3]


def test_a_file_of_one_sample_is_never_batched(settings: Config, loaded: LoadedRelease) -> None:
    backend = Backend(means, batch=1, held=True)

    async def main() -> None:
        engine = Engine(settings.serve)
        await engine.swap(behaving(loaded, backend))
        pending = [asyncio.ensure_future(engine.predict(samples(n))) for n in (1, 3, 1)]
        await until(backend.entered)
        backend.go.set()
        await asyncio.gather(*pending)
        await engine.close()

    run(main)
    assert backend.sizes == [1] * 5


def test_the_queue_is_bounded_except_for_probes(tmp_path: Path) -> None:
    settings = device(tmp_path, serve={"queue": 4})
    loaded = installed(settings)
    backend = Backend(means, held=True)

    async def main() -> None:
        engine = Engine(settings.serve)
        await engine.swap(behaving(loaded, backend))
        pending = [asyncio.ensure_future(engine.predict(samples(1))) for _ in range(4)]
        probe = asyncio.ensure_future(engine.probe())
        await until(backend.entered)
        with pytest.raises(OverloadedError, match="4 samples are waiting; this request would exceed the limit of 4"):
            await engine.predict(samples(1))
        backend.go.set()
        await asyncio.gather(*pending)
        assert not (await probe).passed
        assert engine.waiting == 0
        assert len((await engine.predict(samples(1))).probabilities) == 1
        await engine.close()

    run(main)


@pytest.mark.parametrize("kind", ["nan", "raises"])
def test_a_broken_model_fails_only_its_own_requests(settings: Config, loaded: LoadedRelease, kind: str) -> None:
    def model(x: np.ndarray) -> np.ndarray:
        answer = means(x)
        broken = x[:, 0, 0] > 100
        if kind == "raises" and broken.any():
            raise RuntimeError("out of memory")
        answer[broken] = np.nan
        return answer

    backend = Backend(model, held=True)
    poison = samples(1)
    poison[0, 0, 0] = 1000
    failed: list[Any] = []

    async def main() -> None:
        engine = Engine(settings.serve)
        engine.failure_observers.append(lambda error, loaded, _: failed.append((type(error), loaded.release)))
        await engine.swap(behaving(loaded, backend))
        xs = [samples(1), samples(1), poison, samples(1)]
        pending = [asyncio.ensure_future(engine.predict(x)) for x in xs]
        await until(backend.entered)
        backend.go.set()
        answers = await asyncio.gather(*pending, return_exceptions=True)
        error = OutputError if kind == "nan" else ModelError
        assert [isinstance(answer, error) for answer in answers] == [False, False, True, False]
        assert failed == [(error, "other@1.0.0")]
        await engine.close()

    run(main)


def test_probes_compare_every_golden_sample(settings: Config, loaded: LoadedRelease) -> None:
    wrong_release = installed(settings, "pump@2.0.0", wrong_golden=True)
    observed: list[int] = []

    async def main() -> None:
        engine = Engine(settings.serve)
        engine.observers.append(lambda x, *_: observed.append(len(x)))
        await engine.swap(loaded)
        probes = [await engine.probe() for _ in range(len(loaded.golden_inputs) + 1)]
        assert all(probe.passed and probe.release == RELEASE for probe in probes)
        await engine.swap(wrong_release)
        assert not (await engine.probe()).passed
        await engine.close()

    run(main)
    assert observed == []


def test_a_failing_observer_does_not_drop_a_response(settings: Config, loaded: LoadedRelease) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("observer")

    async def main() -> None:
        engine = Engine(settings.serve)
        engine.observers.append(fails)
        await engine.swap(loaded)
        assert len((await engine.predict(samples(2))).probabilities) == 2
        await engine.close()

    run(main)


def test_no_request_is_lost_between_releases(settings: Config, loaded: LoadedRelease) -> None:
    """Clients send requests continuously while releases change; each result is that of the release it names."""
    others = [loaded, installed(settings, "pump@2.0.0", seed=2), installed(settings, "pump@3.0.0", seed=3)]
    expected = {own.release: own.model for own in (load(settings, own.release) for own in others)}
    order: list[str] = []

    async def main() -> None:
        engine = Engine(settings.serve)
        await engine.swap(loaded)
        ended = asyncio.Event()

        async def client() -> int:
            requests = 0
            while not ended.is_set():
                x = samples(1 + requests % 3)
                answer = await engine.predict(x)
                np.testing.assert_allclose(answer.probabilities, expected[answer.release].predict(x), atol=1e-5)
                order.append(answer.release)
                requests += 1
            return requests

        clients = [asyncio.ensure_future(client()) for _ in range(8)]
        for turn in range(30):
            count = len(order)
            while len(order) < count + 10:
                await asyncio.sleep(0)
            following = others[(turn + 1) % 3]
            await engine.swap(following)
            assert engine.loaded is following
        ended.set()
        assert sum(await asyncio.gather(*clients)) == len(order)
        await engine.close()

    run(main)
    assert set(order) == {own.release for own in others}


def test_a_model_that_hangs_is_abandoned(tmp_path: Path) -> None:
    settings = device(tmp_path, serve={"request_timeout_s": 0.2})
    loaded = installed(settings)
    hanging = Backend(means, held=True)

    async def main() -> None:
        engine = Engine(settings.serve)
        await engine.swap(behaving(loaded, hanging))
        failed: list[Any] = []
        engine.failure_observers.append(lambda error, loaded, _: failed.append(type(error)))
        lost = asyncio.ensure_future(engine.predict(samples(1)))
        await until(hanging.entered)
        behind = asyncio.ensure_future(engine.predict(samples(1)))
        with pytest.raises(TimedOutError, match="no result within"):
            await lost
        with pytest.raises(OverloadedError, match="busy with other requests"):
            await behind
        assert failed == [TimedOutError]
        probe = asyncio.ensure_future(engine.probe())
        await asyncio.sleep(0)  # the request is queued before the swap
        await engine.swap(loaded)
        assert "hangs" in (await probe).fault
        assert (await engine.predict(samples(1))).release == RELEASE
        hanging.go.set()
        await engine.close()

    run(main)
