"""Runs a model file: ONNX Runtime and LiteRT behind one `predict`.

`open_model` takes the file and its `io` description (from export.json or the bundle's manifest):

    {"runtime": "onnxruntime" | "litert",
     "input":  {"name", "shape", "dtype"},
     "output": {"name", "shape", "dtype", "activation": "logits" | "probabilities"},
     "recurrent": null | {"frame", "hop", "states": [{"input", "output", "shape"}]}}

Shapes are those of one sample, without the batch; `input.shape` is the whole sample, also for a recurrent
model whose file reads one frame of it. dtypes are the file's; callers always pass and get float32.
Needs numpy and the one library of its file, which is imported when a file is opened.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# LiteRT's line at the first model of a process, and a TFLite file of one NEG of one float, for it to say so of.
GREETING = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
NEGATE = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAAtAAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAM"
    "AAAAEAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAA"
    "AAACAAAAIAAAAAQAAADu////BAAAAAEAAAABAAAAAAAGAAgABAAGAAAABAAAAAEAAAABAAAAAQAAABAAAAAMAAwACwAAAAAABAAMAAAAOwAAAAAA"
    "ADs="
)
_greeted = threading.Lock()


class InferenceError(Exception):
    """What can go wrong between a model file and its caller. The message is for a person."""


class ModelError(InferenceError):
    """The file cannot be loaded, or is not what its description says."""


class InputError(InferenceError):
    """The input has another shape or type than the model reads, or is not finite."""


class OutputError(InferenceError):
    """The model answered with something that is not a finite number."""


@dataclass(frozen=True)
class State:
    """One recurrent state: the file's input and output names, and its shape without the batch."""

    input: str
    output: str
    shape: tuple[int, ...]


class Backend(Protocol):
    """One loaded file. `run` takes and gives float32 with a batch of `batch` (None: any)."""

    @property
    def batch(self) -> int | None: ...

    @property
    def dtypes(self) -> tuple[str, str]:
        """The file's own types of its first input and its first output."""
        ...

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]: ...


class Model:
    """A loaded model. Not safe for use from several threads at once. `batch`: samples of one run; None: any number.

    Recurrent models: the file computes one step. A step reads `frame` samples of the time axis (the second
    axis of a sample: T of [C, T], H of [C, H, W]), the next one starts `hop` samples later; states start at
    zero for every sample, and the answer is the last step's. What does not fill a frame is not read.
    """

    def __init__(self, backend: Backend, io: Mapping[str, Any], states: Sequence[State]) -> None:
        self._backend = backend
        self._states = states
        self.batch = backend.batch
        self.shape: tuple[int, ...] = tuple(io["input"]["shape"])
        self.classes = int(io["output"]["shape"][-1])
        self._activation = io["output"]["activation"]
        recurrent = io.get("recurrent")
        self._frame = int(recurrent["frame"]) if recurrent else 0
        self._hop = int(recurrent["hop"]) if recurrent else 0

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Probabilities float32 [B, classes] of samples in raw units, float32 [B, *shape].

        Raises InputError, OutputError.
        """
        answer = self.logits(x)
        return softmax(answer) if self._activation == "logits" else answer

    def logits(self, x: np.ndarray) -> np.ndarray:
        """What the file itself answers, float32 [B, classes]. Raises InputError, OutputError."""
        self.check_input(x)
        step = self._backend.batch or max(len(x), 1)
        parts = [self._answer(x[start : start + step]) for start in range(0, len(x), step)]
        answer = np.concatenate(parts) if parts else np.empty((0, self.classes), np.float32)
        if not np.isfinite(answer).all():
            row = int(np.flatnonzero(~np.isfinite(answer).all(axis=1))[0])
            raise OutputError(f"output of sample {row}: found NaN or infinity, expected finite numbers")
        return answer

    def _answer(self, x: np.ndarray) -> np.ndarray:
        if not self._frame:
            return self._shaped(self._backend.run([x])[0], len(x))
        states = [np.zeros((len(x), *state.shape), np.float32) for state in self._states]
        answer = np.empty(0, np.float32)
        for start in range(0, self.shape[1] - self._frame + 1, self._hop):
            answer, *states = self._backend.run([x[:, :, start : start + self._frame], *states])
        return self._shaped(answer, len(x))

    def _shaped(self, answer: np.ndarray, samples: int) -> np.ndarray:
        if answer.shape != (samples, self.classes):
            raise OutputError(f"output: found shape {answer.shape}, expected {(samples, self.classes)}")
        return answer

    def check_input(self, x: np.ndarray) -> None:
        """Raises InputError for what `predict` would refuse. Touches nothing of the model: safe from any thread."""
        if not isinstance(x, np.ndarray) or x.dtype != np.float32:
            found = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
            raise InputError(f"input: found {found}, expected a numpy array of float32")
        if x.ndim != len(self.shape) + 1 or x.shape[1:] != self.shape:
            raise InputError(f"input: found shape {x.shape}, expected (samples, {', '.join(map(str, self.shape))})")
        if not np.isfinite(x).all():
            row = int(np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))[0])
            raise InputError(f"input: found NaN or infinity in sample {row}, expected finite numbers")


def open_model(path: Path, io: Mapping[str, Any], threads: int = 1) -> Model:
    """Load a file on `threads` threads. Raises ModelError."""
    if not Path(path).is_file():
        raise ModelError(f"{path}: there is no such file")
    recurrent = io.get("recurrent")
    states = [State(s["input"], s["output"], tuple(s["shape"])) for s in recurrent["states"]] if recurrent else []
    if recurrent and io["input"]["shape"][1] < recurrent["frame"]:
        raise ModelError(f"{path}: a frame of {recurrent['frame']} is longer than a sample {io['input']['shape']}")
    names = [io["input"]["name"], *(state.input for state in states)]
    answers = [io["output"]["name"], *(state.output for state in states)]
    backends: dict[str, Callable[..., Backend]] = {"onnxruntime": Onnx, "litert": LiteRt}
    if io["runtime"] not in backends:
        raise ModelError(f"{path}: found runtime {io['runtime']!r}, expected one of {', '.join(backends)}")
    backend = backends[io["runtime"]](Path(path), names, answers, threads)
    for part, found in zip(("input", "output"), backend.dtypes, strict=True):
        if io[part]["dtype"] != found:
            raise ModelError(f"{path}: {part}: found dtype {found}, expected {io[part]['dtype']} as described")
    return Model(backend, io, states)


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(x) / sum(exp(x)) over the last axis, shifted by the maximum so that it cannot overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares.astype(np.float32)


class Onnx:
    """A file in ONNX Runtime, on the CPU. Inputs and outputs must be float32: ONNX stores no scale for them."""

    def __init__(self, path: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's fifteen exceptions derive from nothing narrower
            raise ModelError(f"{path}: not loadable by ONNX Runtime: {_first_line(error)}") from None
        found_in = {value.name: value for value in self._session.get_inputs()}
        found_out = {value.name: value for value in self._session.get_outputs()}
        _check_names(path, "inputs", inputs, found_in, exact=True)
        _check_names(path, "outputs", outputs, found_out, exact=False)
        for value in [*found_in.values(), *(found_out[name] for name in outputs)]:
            if value.type != "tensor(float)":
                raise ModelError(
                    f"{path}: {value.name}: found {value.type}, expected tensor(float); ONNX stores no scale for an "
                    "integer input or output, so export the file with float ones"
                )
        first = found_in[inputs[0]].shape[0]
        self.batch = first if isinstance(first, int) else None
        self.dtypes = ("float32", "float32")
        self._inputs, self._outputs = list(inputs), list(outputs)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        feeds = {name: np.ascontiguousarray(x) for name, x in zip(self._inputs, inputs, strict=True)}
        try:
            answers: list[np.ndarray] = self._session.run(self._outputs, feeds)
        except Exception as error:  # as above: a file may load and still fail when it runs
            raise ModelError(f"the model failed in ONNX Runtime: {_first_line(error)}") from None
        return answers


class LiteRt:
    """A TFLite file in LiteRT, one sample at a time; integer inputs and outputs through the file's own scales.

    Names are those of the signature where the file has one, else of its tensors.
    """

    batch = 1

    def __init__(self, path: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        _greet()
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{path}: not loadable by LiteRT: {_first_line(error)}") from None
        found_in, found_out = self._named()
        _check_names(path, "inputs", inputs, found_in, exact=True)
        _check_names(path, "outputs", outputs, found_out, exact=False)
        self._inputs = [found_in[name] for name in inputs]
        self._outputs = [found_out[name] for name in outputs]
        self.dtypes = (np.dtype(self._inputs[0]["dtype"]).name, np.dtype(self._outputs[0]["dtype"]).name)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        try:
            for tensor, x in zip(self._inputs, inputs, strict=True):
                self._interpreter.set_tensor(tensor["index"], quantise(x, tensor))
            self._interpreter.invoke()
            values = [self._interpreter.get_tensor(tensor["index"]) for tensor in self._outputs]
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"the model failed in LiteRT: {_first_line(error)}") from None
        return [dequantise(value, tensor) for value, tensor in zip(values, self._outputs, strict=True)]

    def _named(self) -> tuple[dict[str, Any], dict[str, Any]]:
        found_in = {d["name"]: d for d in self._interpreter.get_input_details()}
        found_out = {d["name"]: d for d in self._interpreter.get_output_details()}
        for key in self._interpreter.get_signature_list():
            runner = self._interpreter.get_signature_runner(key)
            found_in = {**found_in, **runner.get_input_details()}
            found_out = {**found_out, **runner.get_output_details()}
        return found_in, found_out


def quantise(x: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """Real values -> what the tensor holds: round(x / scale) + zero_point, clipped to its type.

    `tensor` is LiteRT's description of it. Rounds half away from zero, as TFLite's QUANTIZE does
    (https://ai.google.dev/edge/litert/models/quantization_spec).
    """
    if np.issubdtype(tensor["dtype"], np.floating):
        return np.ascontiguousarray(x, dtype=tensor["dtype"])
    scale, zero = tensor["quantization"]
    if not scale:
        raise ModelError(f"{tensor['name']}: found {np.dtype(tensor['dtype'])} without a scale, expected one")
    bounds = np.iinfo(tensor["dtype"])
    level = x / np.float32(scale)
    rounded = np.trunc(level + np.copysign(np.float32(0.5), level)) + zero
    return np.clip(rounded, bounds.min, bounds.max).astype(tensor["dtype"])


def dequantise(values: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """What the tensor holds -> real values: scale * (values - zero_point), float32."""
    if np.issubdtype(tensor["dtype"], np.floating):
        return values.astype(np.float32, copy=False)
    scale, zero = tensor["quantization"]
    if not scale:
        raise ModelError(f"{tensor['name']}: found {np.dtype(tensor['dtype'])} without a scale, expected one")
    return ((values.astype(np.int32) - zero) * np.float32(scale)).astype(np.float32)


@functools.cache
def _greet() -> None:
    """Let LiteRT greet where nobody hears it: its Python package has neither a variable nor a call for that.

    stderr is held for as long as NEGATE takes to load, never while a real file does: a native library that dies
    of a file must be heard. What others say meanwhile is passed on.
    """
    from ai_edge_litert.interpreter import Interpreter

    with _greeted, contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
            stack.callback(os.close, kept)
            held = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # no stderr, or no place for a file: then the line is shown
            return
        os.dup2(held.fileno(), 2)
        try:
            with contextlib.suppress(ValueError, RuntimeError):  # the real file's loading tells what is wrong
                Interpreter(model_content=NEGATE).allocate_tensors()
        finally:
            os.dup2(kept, 2)
        held.seek(0)
        for line in held:
            if line.rstrip() != GREETING:
                os.write(kept, line)


def _check_names(path: Path, what: str, wanted: Sequence[str], found: Mapping[str, Any], *, exact: bool) -> None:
    missing = [name for name in wanted if name not in found]
    # A TFLite tensor may be known by two names: what counts is how many tensors there are.
    count = len({value["index"] for value in found.values()}) if _indexed(found) else len(found)
    if missing or (exact and count != len(wanted)):
        raise ModelError(f"{path}: {what}: found {', '.join(found)}, expected {', '.join(wanted)}")


def _indexed(found: Mapping[str, Any]) -> bool:
    return any(isinstance(value, dict) for value in found.values())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
