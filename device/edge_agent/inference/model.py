"""A loaded model with the same methods for every inference library: check inputs, run the file, return probabilities.

This module needs only numpy. edge_agent.inference.backends calls the inference libraries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class InferenceError(Exception):
    """Base class of the errors that make a prediction fail. The message is text for people."""


class ModelError(InferenceError):
    """The model file does not load, fails when it runs, or differs from its description in the manifest."""


class InputError(InferenceError):
    """The input has the wrong shape or type for the model, or has values that are not finite."""


class OutputError(InferenceError):
    """The model's output has the wrong shape or has values that are not finite."""


@dataclass(frozen=True)
class RecurrentState:
    """One state of a recurrent model: the model file's input and output for the state, and the shape of the state.

    `input` and `output` are names. `shape` has no batch axis.
    """

    input: str
    output: str
    shape: tuple[int, ...]


class Backend(Protocol):
    """A model file that an inference library has loaded.

    `run` takes and returns float32 arrays of `batch` samples. If `batch` is None, the arrays can have any number of
    samples.
    """

    @property
    def batch(self) -> int | None: ...

    @property
    def dtypes(self) -> tuple[str, str]:
        """The dtypes that the model file declares for its first input and its first output."""
        ...

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]: ...


class Model:
    """A loaded model. It must not be used by several threads at the same time.

    `output_dtype` is the data type of the output in the file, such as "float32" or "int8".

    `batch` is the number of samples that one run of the model file computes; None means any number. A caller sets it to
    1 for a file whose results depend on the samples that are computed in the same run (see golden_replay.py).

    In one run, the file of a recurrent model computes one step. A step reads `frame` values of the time axis (the
    second axis of a sample: T of [C, T], H of [C, H, W]), and the next step starts `hop` values later. For every
    sample, the states start at zero, and the result is the output of the last step. Values at the end of the time axis
    that do not fill a frame are ignored.
    """

    def __init__(self, backend: Backend, io: Mapping[str, Any], states: Sequence[RecurrentState]) -> None:
        """Wrap a loaded model file.

        Args:
            backend: The model file, as loaded by an inference library.
            io: Description of the file's inputs and outputs; edge_agent.inference.runtime documents the format.
            states: The states of a recurrent model, in the order in which `backend` takes and returns them; empty for
                other models.
        """
        self._backend = backend
        self._states = states
        self.batch: int | None = backend.batch
        self.shape: tuple[int, ...] = tuple(io["input"]["shape"])
        self.classes = int(io["output"]["shape"][-1])
        self._activation = io["output"]["activation"]
        self.output_dtype: str = io["output"]["dtype"]
        recurrent = io.get("recurrent")
        self._frame = int(recurrent["frame"]) if recurrent else 0
        self._hop = int(recurrent["hop"]) if recurrent else 0

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the class probabilities of samples, float32 [B, classes].

        `x` has the samples in raw units, float32 [B, *shape]. Raises InputError, OutputError, ModelError.
        """
        return self._activate(self.logits(x))

    def predict_in_one_run(self, x: np.ndarray) -> np.ndarray:
        """Return the class probabilities of samples that the file computes in one run, float32 [B, classes].

        They can be NaN or infinity, and `batch` is ignored. `x` has samples in raw units, float32 [B, *shape]. Raises
        OutputError, ModelError.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return self._activate(self._run(x))

    def _activate(self, output: np.ndarray) -> np.ndarray:
        return softmax(output) if self._activation == "logits" else output

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Return the output of the model file without applying a softmax, float32 [B, classes].

        `x` has samples in raw units, float32 [B, *shape]. Raises InputError, OutputError, ModelError.
        """
        self.check_input(x)
        step = self.batch or max(len(x), 1)
        parts = [self._run(x[start : start + step]) for start in range(0, len(x), step)]
        output = np.concatenate(parts) if parts else np.empty((0, self.classes), np.float32)
        if not np.isfinite(output).all():
            row = int(np.flatnonzero(~np.isfinite(output).all(axis=1))[0])
            raise OutputError(f"output of sample {row}: found NaN or infinity, expected finite numbers")
        return output

    def _run(self, x: np.ndarray) -> np.ndarray:
        if not self._frame:
            return self._check_output(self._backend.run([x])[0], len(x))
        states = [np.zeros((len(x), *state.shape), np.float32) for state in self._states]
        output = np.empty(0, np.float32)
        for start in range(0, self.shape[1] - self._frame + 1, self._hop):
            output, *states = self._backend.run([x[:, :, start : start + self._frame], *states])
        return self._check_output(output, len(x))

    def _check_output(self, output: np.ndarray, samples: int) -> np.ndarray:
        if output.shape != (samples, self.classes):
            raise OutputError(f"output: found shape {output.shape}, expected {(samples, self.classes)}")
        return output

    def check_input(self, x: np.ndarray) -> None:
        """Raise InputError for an input that `predict` would refuse.

        Any thread can call this method at any time, because the method does not use the model file.
        """
        if not isinstance(x, np.ndarray) or x.dtype != np.float32:
            kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
            raise InputError(f"input: found {kind}, expected a numpy array of float32")
        if x.ndim != len(self.shape) + 1 or x.shape[1:] != self.shape:
            raise InputError(f"input: found shape {x.shape}, expected (samples, {', '.join(map(str, self.shape))})")
        if not np.isfinite(x).all():
            row = int(np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))[0])
            raise InputError(f"input: found NaN or infinity in sample {row}, expected finite numbers")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return exp(x) / sum(exp(x)) over the last axis. The maximum is subtracted first, so that exp cannot overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares.astype(np.float32)
