"""What the agent adds to a bare interpreter, in one process: its runtime, and its engine with the counting."""

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
    """Processor seconds of one call, the least of alternating blocks: others on the machine only add to the rest."""

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
class Engined:
    """Seconds of one prediction, the least of alternating blocks: Model.predict alone, and through the engine one after
    the other and together.
    """

    predict_s: float
    sequential_s: float
    together_s: float


def models(folder: Path, exported: Path) -> Iterator[tuple[str, Path, Mapping[str, Any]]]:
    """Name, file and `io` of a tiny model for each runtime, and of what the pipeline exported, where it did."""
    made = bundle(folder / "tiny", targets=("onnx-fp32", "tflite-int8"))
    settings = device(folder / "device")
    installed(settings, targets=("onnx-fp32", "tflite-int8"))
    root = settings.layout.bundle("pump@1.0.0")
    for target, described in made.manifest["targets"].items():
        yield f"tiny {target}", root / described["file"], described["io"]
    for described in sorted(exported.glob("*/export.json")):
        value = json.loads(described.read_text())
        yield f"exported {described.parent.name}", described.with_name(value["file"]), value["io"]


def compare(name: str, file: Path, io: Mapping[str, Any]) -> Comparison:
    """One sample on one thread: `Model.predict` against the interpreter that it holds, fed what it reads.

    A recurrent model is a loop of calls, which the bare interpreter would need as well: `Backend.run` is its bare side.
    """
    model = open_model(file, io)
    x = np.random.default_rng(1).normal(size=(1, *model.shape)).astype(np.float32)
    bare, own = _bare(model, x), lambda: model.predict(x)
    calls = max(int(BLOCK_S / _block(bare, 50)), 20)
    pairs = [(_block(bare, calls), _block(own, calls)) for _ in range(ROUNDS)]
    return Comparison(name, min(pair[0] for pair in pairs), min(pair[1] for pair in pairs))


def _block(call: Callable[[], Any], calls: int) -> float:
    """Processor seconds of this thread per call; what was taken from it meanwhile does not count."""
    began = time.thread_time()
    for _ in range(calls):
        call()
    return (time.thread_time() - began) / calls


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


def engine(folder: Path) -> Engined:
    """Queue, thread and counting around a tiny ONNX model, one sample each."""
    settings = device(folder / "engine")
    loaded = installed(settings)
    x = np.ascontiguousarray(loaded.golden_inputs[:1])

    async def measure() -> Engined:
        served = Engine(settings.serve)
        statistics = ServiceStatistics(settings).attach(served)
        await served.swap(loaded)

        async def ask() -> None:
            statistics.remember(await served.predict(x))

        async def together() -> None:
            await asyncio.gather(*(ask() for _ in range(AT_ONCE)))

        found: list[tuple[float, float, float]] = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            for _ in range(500):
                loaded.model.predict(x)
            began = time.perf_counter()
            for _ in range(500):
                await ask()
            one = time.perf_counter()
            for _ in range(20):
                await together()
            found.append(((began - begin) / 500, (one - began) / 500, (time.perf_counter() - one) / (20 * AT_ONCE)))
        await served.close()
        return Engined(*(min(column) for column in zip(*found, strict=True)))

    return asyncio.run(measure())
