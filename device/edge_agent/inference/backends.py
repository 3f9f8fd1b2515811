"""Run ONNX files with ONNX Runtime, and TFLite files with LiteRT. A library is imported only when a file needs it."""

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

# LiteRT prints this line when a process loads its first model. NEG_MODEL is a TFLite file with a single NEG operation
# on one float; the agent loads it first, so that LiteRT prints the line then.
GREETING = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
NEG_MODEL = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAAtAAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAM"
    "AAAAEAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAA"
    "AAACAAAAIAAAAAQAAADu////BAAAAAEAAAABAAAAAAAGAAgABAAGAAAABAAAAAEAAAABAAAAAQAAABAAAAAMAAwACwAAAAAABAAMAAAAOwAAAAAA"
    "ADs="
)
_greeting_lock = threading.Lock()


class Onnx:
    """An ONNX file that ONNX Runtime runs on the CPU.

    Inputs and outputs must be float32, because an ONNX file stores no scale with which integers could be converted.
    """

    def __init__(self, path: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int) -> None:
        """Load the ONNX file, and check its inputs and outputs.

        Args:
            path: The ONNX file.
            inputs: Names of all inputs of the file, in the order in which `run` receives them.
            outputs: Names of the outputs that `run` returns, in the order of its result.
            threads: Number of threads that one operation of the model may use.

        Raises:
            ModelError: The file does not load, or does not have these inputs and outputs.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's fifteen exception types have no other common base class
            raise ModelError(f"{path}: not loadable by ONNX Runtime: {_first_line(error)}") from None
        file_inputs = {value.name: value for value in self._session.get_inputs()}
        file_outputs = {value.name: value for value in self._session.get_outputs()}
        _check_names(path, "inputs", inputs, file_inputs, exact=True)
        _check_names(path, "outputs", outputs, file_outputs, exact=False)
        for value in [*file_inputs.values(), *(file_outputs[name] for name in outputs)]:
            if value.type != "tensor(float)":
                raise ModelError(
                    f"{path}: {value.name}: found {value.type}, expected tensor(float){_advice(value.type)}"
                )
            if not value.shape:
                raise ModelError(
                    f"{path}: {value.name}: found a scalar, expected a tensor whose first axis is the batch"
                )
        first = file_inputs[inputs[0]].shape[0]
        self.batch = first if isinstance(first, int) else None
        self.dtypes = ("float32", "float32")
        self._inputs, self._outputs = list(inputs), list(outputs)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run the model once on float32 inputs, and return its outputs. Raises ModelError."""
        feeds = {name: np.ascontiguousarray(x) for name, x in zip(self._inputs, inputs, strict=True)}
        try:
            results: list[np.ndarray] = self._session.run(self._outputs, feeds)
        except Exception as error:  # a file that loads can fail when it runs, with any of the library's exceptions
            raise ModelError(f"the model failed in ONNX Runtime: {_first_line(error)}") from None
        return results


class LiteRt:
    """A TFLite file that LiteRT runs on one sample at a time.

    `run` converts integer inputs and outputs with the scales in the file. Callers can use the names of inputs and
    outputs from the file's signature, or the names of the tensors.
    """

    batch = 1

    def __init__(self, path: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int) -> None:
        """Load the TFLite file, and check its inputs and outputs.

        Args:
            path: The TFLite file.
            inputs: Names of all inputs of the file, in the order in which `run` receives them.
            outputs: Names of the outputs that `run` returns, in the order of its result.
            threads: Number of threads that LiteRT's interpreter may use.

        Raises:
            ModelError: The file does not load, or does not have these inputs and outputs.
        """
        from ai_edge_litert.interpreter import Interpreter

        _suppress_greeting()
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{path}: not loadable by LiteRT: {_first_line(error)}") from None
        file_inputs, file_outputs = self._tensors_by_name()
        _check_names(path, "inputs", inputs, file_inputs, exact=True)
        _check_names(path, "outputs", outputs, file_outputs, exact=False)
        self._inputs = [file_inputs[name] for name in inputs]
        self._outputs = [file_outputs[name] for name in outputs]
        self.dtypes = (np.dtype(self._inputs[0]["dtype"]).name, np.dtype(self._outputs[0]["dtype"]).name)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run the model once on one float32 sample, and return its outputs as float32. Raises ModelError."""
        try:
            for tensor, x in zip(self._inputs, inputs, strict=True):
                self._interpreter.set_tensor(tensor["index"], quantise(x, tensor))
            self._interpreter.invoke()
            values = [self._interpreter.get_tensor(tensor["index"]) for tensor in self._outputs]
        except ModelError:
            raise
        except Exception as error:  # a file that loads can fail when it runs, with any exception
            raise ModelError(f"the model failed in LiteRT: {_first_line(error)}") from None
        return [dequantise(value, tensor) for value, tensor in zip(values, self._outputs, strict=True)]

    def _tensors_by_name(self) -> tuple[dict[str, Any], dict[str, Any]]:
        file_inputs = {d["name"]: d for d in self._interpreter.get_input_details()}
        file_outputs = {d["name"]: d for d in self._interpreter.get_output_details()}
        for key in self._interpreter.get_signature_list():
            runner = self._interpreter.get_signature_runner(key)
            file_inputs = {**file_inputs, **runner.get_input_details()}
            file_outputs = {**file_outputs, **runner.get_output_details()}
        return file_inputs, file_outputs


def _advice(onnx_type: str) -> str:
    """Return the remedy for an input or output of an ONNX file that is not float32, such as `tensor(int8)`."""
    if "float" in onnx_type or "double" in onnx_type:
        return "; insert a Cast, so that the file has float32 inputs and outputs"
    if onnx_type.startswith("tensor(") and "int" in onnx_type:
        return (
            "; ONNX stores no scale for integer inputs and outputs, so export the file with float32 inputs and outputs"
        )
    return "; the agent serves only models whose inputs and outputs are numbers"


def quantise(x: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """Convert real values to the integers of a tensor: round(x / scale) + zero_point, clipped to the tensor's type.

    `tensor` is LiteRT's description of the tensor. Values halfway between two integers are rounded away from zero, as
    in TFLite's operation QUANTIZE (https://ai.google.dev/edge/litert/models/quantization_spec).
    """
    if np.issubdtype(tensor["dtype"], np.floating):
        return np.ascontiguousarray(x, dtype=tensor["dtype"])
    scale, zero = tensor["quantization"]
    if not scale:
        raise ModelError(f"{tensor['name']}: found {np.dtype(tensor['dtype'])} without a scale, expected a scale")
    bounds = np.iinfo(tensor["dtype"])
    level = x / np.float32(scale)
    rounded = np.trunc(level + np.copysign(np.float32(0.5), level)) + zero
    clipped: np.ndarray = np.clip(rounded, bounds.min, bounds.max).astype(tensor["dtype"])
    return clipped


def dequantise(values: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """Convert the integers of a tensor to real values, float32: scale * (values - zero_point).

    `tensor` is LiteRT's description of the tensor.
    """
    if np.issubdtype(tensor["dtype"], np.floating):
        return values.astype(np.float32, copy=False)
    scale, zero = tensor["quantization"]
    if not scale:
        raise ModelError(f"{tensor['name']}: found {np.dtype(tensor['dtype'])} without a scale, expected a scale")
    real: np.ndarray = ((values.astype(np.int32) - zero) * np.float32(scale)).astype(np.float32)
    return real


@functools.cache
def _suppress_greeting() -> None:
    """Make LiteRT print its greeting line now, and discard this line, because LiteRT has no setting to turn it off.

    stderr is redirected only while the tiny model NEG_MODEL loads. It is never redirected while a real model loads,
    because an operator must see the messages of a native library that crashes on the model. Other lines that are
    written during the redirection are written to stderr afterwards.
    """
    from ai_edge_litert.interpreter import Interpreter

    with _greeting_lock, contextlib.ExitStack() as stack:
        try:
            stderr = os.dup(2)
            stack.callback(os.close, stderr)
            captured = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # there is no stderr, or no space for a file: let LiteRT print its greeting
            return
        os.dup2(captured.fileno(), 2)
        try:
            with contextlib.suppress(ValueError, RuntimeError):  # loading the real file will report the failure
                Interpreter(model_content=NEG_MODEL).allocate_tensors()
        finally:
            os.dup2(stderr, 2)
        captured.seek(0)
        for line in captured:
            if line.rstrip() != GREETING:
                os.write(stderr, line)


def _check_names(path: Path, kind: str, requested: Sequence[str], available: Mapping[str, Any], *, exact: bool) -> None:
    missing = [name for name in requested if name not in available]
    # A TFLite tensor can have two names, so tensors are counted by their index.
    count = len({value["index"] for value in available.values()}) if _has_indices(available) else len(available)
    if missing or (exact and count != len(requested)):
        raise ModelError(f"{path}: {kind}: found {', '.join(available)}, expected {', '.join(requested)}")


def _has_indices(tensors: Mapping[str, Any]) -> bool:
    return any(isinstance(value, dict) for value in tensors.values())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
