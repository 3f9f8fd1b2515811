"""A loaded model, independent of the library that runs its file: check the input, run, return probabilities.

Needs numpy only; edge_agent.inference.backends wraps the libraries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class InferenceError(Exception):
    """Base class of all failures of a prediction. The message is for people."""


class ModelError(InferenceError):
    """The model file cannot be loaded, fails when it runs, or differs from its description."""


class InputError(InferenceError):
    """The input has the wrong shape or type for the model, or is not finite."""


class OutputError(InferenceError):
    """The model's output has the wrong shape or is not finite."""


@dataclass(frozen=True)
class RecurrentState:
    """A state of a recurrent model: the file's input and output names, and the shape without the batch axis."""

    input: str
    output: str
    shape: tuple[int, ...]


class Backend(Protocol):
    """A loaded file. `run` takes and returns float32 arrays with `batch` samples (None: any number)."""

    @property
    def batch(self) -> int | None: ...

    @property
    def dtypes(self) -> tuple[str, str]:
        """The dtypes in the file of its first input and its first output."""
        ...

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]: ...


class Model:
    """A loaded model. Not safe for concurrent use by several threads. `batch`: samples of one run; None: any number.

    A recurrent model's file computes one step. A step reads `frame` values of the time axis (the second axis of a
    sample: T of [C, T], H of [C, H, W]); the next step starts `hop` values later. States start at zero for every
    sample, and the result is that of the last step. Values at the end that do not fill a frame are not read.
    """

    def __init__(self, backend: Backend, io: Mapping[str, Any], states: Sequence[RecurrentState]) -> None:
        """Wrap a loaded file.

        Args:
            backend: The file, opened by its library.
            io: The target's `io` description (see edge_agent.inference.runtime).
            states: The recurrent states, in the file's order; empty for other models.
        """
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
        """Return the probabilities, float32 [B, classes], of samples in raw units, float32 [B, *shape].

        Raises InputError, OutputError, ModelError.
        """
        output = self.logits(x)
        return softmax(output) if self._activation == "logits" else output

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Return the file's own output, float32 [B, classes]. Raises InputError, OutputError, ModelError."""
        self.check_input(x)
        step = self._backend.batch or max(len(x), 1)
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
        """Raise InputError for an input that `predict` would refuse. Does not use the file: safe from any thread."""
        if not isinstance(x, np.ndarray) or x.dtype != np.float32:
            kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
            raise InputError(f"input: found {kind}, expected a numpy array of float32")
        if x.ndim != len(self.shape) + 1 or x.shape[1:] != self.shape:
            raise InputError(f"input: found shape {x.shape}, expected (samples, {', '.join(map(str, self.shape))})")
        if not np.isfinite(x).all():
            row = int(np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))[0])
            raise InputError(f"input: found NaN or infinity in sample {row}, expected finite numbers")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return exp(x) / sum(exp(x)) over the last axis, shifted by the maximum so that it cannot overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares.astype(np.float32)
