"""Measure in one process how much time the agent adds to a bare interpreter, in its runtime and in its engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from edge_agent.inference.backends import LiteRt, Onnx, quantise
from edge_agent.inference.engine import Engine
from edge_agent.inference.model import Model
from edge_agent.inference.runtime import open_model
from edge_agent.monitoring.service_statistics import ServiceStatistics

from tests.support.agent.bundles import bundle
from tests.support.agent.serving import device, installed

ROUNDS = 41
BLOCK_S = 0.02
AT_ONCE = 32
AIM_SHARE, AIM_S = 0.10, 50e-6


@dataclass(frozen=True)
class Comparison:
    """Processor time of one call in seconds. `bare_s`: of the bare interpreter. `own_s`: of Model.predict.

    Each is the minimum over alternating blocks, because other processes can only add time.
    """

    name: str
    bare_s: float
    own_s: float

    @property
    def extra_s(self) -> float:
        return self.own_s - self.bare_s

    @property
    def allowed_s(self) -> float:
        return max(AIM_SHARE * self.bare_s, AIM_S)


@dataclass(frozen=True)
class EngineTimes:
    """Duration of one prediction in seconds, the minimum over alternating blocks.

    `predict_s`: Model.predict alone. `sequential_s`: through the engine, one prediction at a time. `together_s`:
    through the engine, with concurrent predictions.
    """

    predict_s: float
    sequential_s: float
    together_s: float


def models(folder: Path, exported: Path) -> Iterator[tuple[str, Path, Mapping[str, Any]]]:
    """Yield name, file and `io` of a tiny model for each runtime, and of the models that the pipeline exported."""
    tiny = bundle(folder / "tiny", targets=("onnx-fp32", "tflite-int8"))
    settings = device(folder / "device")
    installed(settings, targets=("onnx-fp32", "tflite-int8"))
    root = settings.layout.bundle("pump@1.0.0")
    for target, described in tiny.manifest["targets"].items():
        yield f"tiny {target}", root / described["file"], described["io"]
    for described in sorted(exported.glob("*/export.json")):
        value = json.loads(described.read_text())
        yield f"exported {described.parent.name}", described.with_name(value["file"]), value["io"]


def compare(name: str, file: Path, io: Mapping[str, Any]) -> Comparison:
    """Compare `Model.predict` with its bare interpreter, for one sample on one thread.

    A recurrent model needs a loop of calls in either case, so it is compared with the loop over `Backend.run`.

    Args:
        name: Name of the model in the result.
        file: The model file.
        io: The inputs and outputs of the file (see edge_agent.inference.runtime).
    """
    model = open_model(file, io)
    x = np.random.default_rng(1).normal(size=(1, *model.shape)).astype(np.float32)
    bare, own = _bare(model, x), lambda: model.predict(x)
    calls = max(int(BLOCK_S / _block(bare, 50)), 20)
    pairs = [(_block(bare, calls), _block(own, calls)) for _ in range(ROUNDS)]
    return Comparison(name, min(pair[0] for pair in pairs), min(pair[1] for pair in pairs))


def _block(call: Callable[[], Any], calls: int) -> float:
    """Return the processor time of this thread per call in seconds. Time of other processes is not counted."""
    started = time.thread_time()
    for _ in range(calls):
        call()
    return (time.thread_time() - started) / calls


def _bare(model: Model, x: np.ndarray) -> Callable[[], Any]:
    backend: Any = model._backend
    if model._frame:
        return lambda: model._run(x)
    if isinstance(backend, Onnx):
        session, outputs, feeds = backend._session, backend._outputs, {backend._inputs[0]: x}
        return lambda: session.run(outputs, feeds)
    assert isinstance(backend, LiteRt)
    interpreter, tensor = backend._interpreter, backend._inputs[0]
    value, into, out = quantise(x, tensor), tensor["index"], backend._outputs[0]["index"]

    def invoke() -> Any:
        interpreter.set_tensor(into, value)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    return invoke


def engine(folder: Path) -> EngineTimes:
    """Measure the cost of the engine's queue, thread and statistics with a tiny ONNX model, one sample a request."""
    settings = device(folder / "engine")
    loaded = installed(settings)
    x = np.ascontiguousarray(loaded.golden_inputs[:1])

    async def measure() -> EngineTimes:
        served = Engine(settings.serve)
        statistics = ServiceStatistics(settings).attach(served)
        await served.swap(loaded)

        async def request() -> None:
            statistics.remember(await served.predict(x))

        async def together() -> None:
            await asyncio.gather(*(request() for _ in range(AT_ONCE)))

        rounds: list[tuple[float, float, float]] = []
        for _ in range(ROUNDS):
            predict_start = time.perf_counter()
            for _ in range(500):
                loaded.model.predict(x)
            sequential_start = time.perf_counter()
            for _ in range(500):
                await request()
            together_start = time.perf_counter()
            for _ in range(20):
                await together()
            end = time.perf_counter()
            rounds.append(
                (
                    (sequential_start - predict_start) / 500,
                    (together_start - sequential_start) / 500,
                    (end - together_start) / (20 * AT_ONCE),
                )
            )
        await served.close()
        return EngineTimes(*(min(column) for column in zip(*rounds, strict=True)))

    return asyncio.run(measure())
