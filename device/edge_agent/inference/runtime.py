"""Open a model file: ONNX Runtime and LiteRT behind one `predict`.

`open_model` takes the file and its `io` description (from export.json or the bundle's manifest):

    {"runtime": "onnxruntime" | "litert",
     "input":  {"name", "shape", "dtype"},
     "output": {"name", "shape", "dtype", "activation": "logits" | "probabilities"},
     "recurrent": null | {"frame", "hop", "states": [{"input", "output", "shape"}]}}

Shapes are those of one sample, without the batch axis. `input.shape` is the whole sample, even if a recurrent model's
file reads one frame of it at a time. dtypes are the file's; callers always pass and receive float32.
Needs numpy and the library of the file's format, which is imported when a file is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_agent.inference.backends import LiteRt, Onnx
from edge_agent.inference.model import Backend, Model, ModelError, RecurrentState


def open_model(path: Path, io: Mapping[str, Any], threads: int = 1) -> Model:
    """Load a model file.

    Args:
        path: The model file.
        io: Its description, in the format above.
        threads: Number of threads that one prediction may use.

    Raises:
        ModelError: The file is missing, does not load, or differs from `io`.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: there is no such file")
    recurrent = io.get("recurrent")
    states = (
        [RecurrentState(s["input"], s["output"], tuple(s["shape"])) for s in recurrent["states"]] if recurrent else []
    )
    if recurrent and io["input"]["shape"][1] < recurrent["frame"]:
        raise ModelError(f"{path}: a frame of {recurrent['frame']} is longer than a sample {io['input']['shape']}")
    inputs = [io["input"]["name"], *(state.input for state in states)]
    outputs = [io["output"]["name"], *(state.output for state in states)]
    backends: dict[str, Callable[..., Backend]] = {"onnxruntime": Onnx, "litert": LiteRt}
    if io["runtime"] not in backends:
        raise ModelError(f"{path}: found runtime {io['runtime']!r}, expected one of {', '.join(backends)}")
    backend = backends[io["runtime"]](Path(path), inputs, outputs, threads)
    for part, dtype in zip(("input", "output"), backend.dtypes, strict=True):
        if io[part]["dtype"] != dtype:
            raise ModelError(f"{path}: {part}: found dtype {dtype}, expected {io[part]['dtype']} as described")
    return Model(backend, io, states)
