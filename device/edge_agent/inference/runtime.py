"""Open ONNX and TFLite files as objects of the same class, `Model` (see model.py).

`open_model` takes the path of a model file, and the description `io` of the file's inputs and outputs (from export.json
or the bundle's manifest):

    {"runtime": "onnxruntime" | "litert",
     "input":  {"name", "shape", "dtype"},
     "output": {"name", "shape", "dtype", "activation": "logits" | "probabilities"},
     "recurrent": null | {"frame", "hop", "states": [{"input", "output", "shape"}]}}

Every `shape` is the shape of one sample, without the batch axis. `input.shape` is the shape of the whole sample, even
if the file of a recurrent model reads only one frame of the sample at a time. `dtype` is the data type in the file;
callers always pass and receive float32. ONNX Runtime and LiteRT are each imported only when a file needs them.
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
        io: Description of the file's inputs and outputs, in the format that the module's docstring describes.
        threads: Number of threads that one prediction may use.

    Raises:
        ModelError: The file is missing or does not load, or its inputs and outputs differ from `io`.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: there is no such file")
    recurrent = io.get("recurrent")
    states = (
        [RecurrentState(s["input"], s["output"], tuple(s["shape"])) for s in recurrent["states"]] if recurrent else []
    )
    if recurrent and io["input"]["shape"][1] < recurrent["frame"]:
        raise ModelError(
            f"{path}: a frame of {recurrent['frame']} is longer than a sample of shape {io['input']['shape']}"
        )
    inputs = [io["input"]["name"], *(state.input for state in states)]
    outputs = [io["output"]["name"], *(state.output for state in states)]
    backends: dict[str, Callable[..., Backend]] = {"onnxruntime": Onnx, "litert": LiteRt}
    if io["runtime"] not in backends:
        raise ModelError(f"{path}: found runtime {io['runtime']!r}, expected one of {', '.join(backends)}")
    try:
        backend = backends[io["runtime"]](Path(path), inputs, outputs, threads)
    except (ModelError, ImportError):
        raise
    except Exception as error:  # a damaged file can make an inference library raise any exception
        raise ModelError(f"{path}: not loadable by {io['runtime']}: {type(error).__name__}: {error}") from None
    for part, dtype in zip(("input", "output"), backend.dtypes, strict=True):
        if io[part]["dtype"] != dtype:
            raise ModelError(f"{path}: {part}: found dtype {dtype}, expected {io[part]['dtype']} as in `io`")
    return Model(backend, io, states)
