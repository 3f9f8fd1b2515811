"""A loaded model, whatever library runs its file: checks the input, runs the file, gives probabilities.

Needs numpy only; edge_agent.inference.backends has the libraries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


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


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(x) / sum(exp(x)) over the last axis, shifted by the maximum so that it cannot overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares.astype(np.float32)
