"""What runs a model file: ONNX Runtime, and LiteRT for TFLite files. Each is imported when a file is opened."""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.inference.model import ModelError

# LiteRT's line at the first model of a process, and a TFLite file of one NEG of one float, for it to say so of.
GREETING = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
NEGATE = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAAtAAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAM"
    "AAAAEAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAA"
    "AAACAAAAIAAAAAQAAADu////BAAAAAEAAAABAAAAAAAGAAgABAAGAAAABAAAAAEAAAABAAAAAQAAABAAAAAMAAwACwAAAAAABAAMAAAAOwAAAAAA"
    "ADs="
)
_greeted = threading.Lock()


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
    clipped: np.ndarray = np.clip(rounded, bounds.min, bounds.max).astype(tensor["dtype"])
    return clipped


def dequantise(values: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """What the tensor holds -> real values: scale * (values - zero_point), float32."""
    if np.issubdtype(tensor["dtype"], np.floating):
        return values.astype(np.float32, copy=False)
    scale, zero = tensor["quantization"]
    if not scale:
        raise ModelError(f"{tensor['name']}: found {np.dtype(tensor['dtype'])} without a scale, expected one")
    real: np.ndarray = ((values.astype(np.int32) - zero) * np.float32(scale)).astype(np.float32)
    return real


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
