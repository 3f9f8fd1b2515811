"""Latency and memory of models whose cost is known from below."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from stages.core.errors import StageError
from stages.evaluate.latency import measure_latency, measure_memory
from tests.support.agent.model_files import description, onnx_linear

SAMPLES = np.arange(6, dtype=np.float32).reshape(3, 2)


class Busy:
    """Answers after 0.2 ms of work, and every tenth time after 2 ms."""

    def __init__(self) -> None:
        self.seen: list[list[list[float]]] = []

    def predict(self, x: np.ndarray) -> np.ndarray:
        until = time.perf_counter_ns() + (2_000_000 if len(self.seen) % 10 == 0 else 200_000)
        self.seen.append(x.tolist())
        while time.perf_counter_ns() < until:
            pass
        return x


def test_percentiles_are_those_of_single_calls_in_milliseconds() -> None:
    result = measure_latency(Busy(), SAMPLES, warmup=3, repeats=400, confidence=0.95)  # type: ignore[arg-type]

    assert list(result) == ["p50", "p95", "p99"]
    assert 0.2 <= result["p50"].value < 2.0
    assert result["p95"].value >= 2.0
    assert all(e.low <= e.value <= e.high for e in result.values())


def test_warm_up_does_not_count_and_samples_take_turns_one_at_a_time() -> None:
    """Given that only the first call is slow, then with one warm-up call even the slowest is quick."""

    class Lazy(Busy):
        def predict(self, x: np.ndarray) -> np.ndarray:
            first = not self.seen
            self.seen.append(x.tolist())
            until = time.perf_counter_ns() + (300_000_000 if first else 0)
            while time.perf_counter_ns() < until:
                pass
            return x

    model = Lazy()
    result = measure_latency(model, SAMPLES, warmup=1, repeats=400, confidence=0.95)  # type: ignore[arg-type]

    assert len(model.seen) == 401
    assert model.seen[:4] == [[[0.0, 1.0]], [[2.0, 3.0]], [[4.0, 5.0]], [[0.0, 1.0]]]
    assert result["p99"].high < 300


@pytest.mark.slow
def test_memory_is_what_the_model_adds_to_a_process(tmp_path: Path) -> None:
    """Given two files, one with 20 MB more of weights than the other, then they differ by that at least."""
    result = {}
    for width in (10, 2_500):
        file = onnx_linear(tmp_path / f"{width}.onnx", np.ones((width, 2_000)))
        np.save(tmp_path / "sample.npy", np.zeros((1, width), np.float32))
        io = description("onnxruntime", [width], 2_000)
        result[width] = measure_memory(file, io, tmp_path / "sample.npy", threads=1, confidence=0.9)

    assert result[2_500].value - result[10].value >= 19
    assert result[10].value < 40
    assert all(e.low <= e.value <= e.high for e in result.values())


def test_a_model_that_the_probe_cannot_load_is_an_error_for_a_person(tmp_path: Path) -> None:
    np.save(tmp_path / "sample.npy", np.zeros((1, 2), np.float32))

    with pytest.raises(StageError, match=r"ModelError: .*there is no such file"):
        measure_memory(tmp_path / "missing.onnx", description("onnxruntime", [2], 2), tmp_path / "sample.npy", 1, 0.9)
