"""Load the network as a torch module that converters can trace, and describe its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.core.errors import ConversionError
from stages.networks import Network, load

# Preprocessing is computed in float even in an int8 file, because a single quantisation scale for channels of different
# ranges would erase channels with small values. Operations of the module with this name are not quantised.
FLOAT_SCOPE = "preprocess"


class Step(nn.Module):
    """A module that computes one step of a recurrent network: (frame, *states) -> (logits, *new states).

    Only one step is converted, because a converter would unroll a loop over all steps into a large file.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        stepped: tuple[Tensor, ...] = self.network.step(x, *states)
        return stepped


@dataclass(frozen=True)
class Graph:
    """A torch module for a converter to trace, with example inputs and the names of its inputs and outputs.

    For a recurrent network, the module is a single step, and `recurrent` has the frame length, the hop and the states.
    For other networks, `recurrent` is None.
    """

    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: list[str]
    outputs: list[str]
    recurrent: dict[str, Any] | None
    network: Any

    @classmethod
    def read(cls, path: Path) -> Graph:
        """Load the network from the file `path`, and return its graph. Raises StageError."""
        network: Any = load(path)
        sample = torch.zeros(1, *network.spec.shape)
        if not hasattr(network, "step"):
            return cls(network, (sample,), ["input"], ["output"], None, network)
        states = network.initial_states(1)
        described: list[dict[str, Any]] = [
            {"input": f"state_{i}", "output": f"next_state_{i}", "shape": list(state.shape[1:])}
            for i, state in enumerate(states)
        ]
        return cls(
            Step(network).eval(),
            (sample[:, :, : network.frame], *states),
            ["input", *(state["input"] for state in described)],
            ["output", *(state["output"] for state in described)],
            {"frame": network.frame, "hop": network.hop, "states": described},
            network,
        )

    def io(self, runtime: str) -> dict[str, Any]:
        """Return the description of the inputs and outputs of a converted file that uses float32 for all of them.

        The code that runs the file on a device reads this description.
        """
        spec = self.network.spec
        return {
            "runtime": runtime,
            "input": {"name": "input", "shape": list(spec.shape), "dtype": "float32"},
            "output": {"name": "output", "shape": [len(spec.classes)], "dtype": "float32", "activation": "logits"},
            "recurrent": self.recurrent,
        }

    @torch.no_grad()
    def feeds(self, samples: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Return N calibration inputs of batch size 1, made from samples [N, *shape] in raw units.

        Each calibration input maps the names of the module's inputs to arrays. For a recurrent network, the calibration
        inputs are taken at equal distances from all steps of all samples, with the network's states at these steps.
        """
        x = torch.from_numpy(samples)
        if self.recurrent is None:
            return [{"input": sample[None]} for sample in samples]
        states, steps = self.network.initial_states(len(x)), []
        for start in range(0, x.shape[2] - self.network.frame + 1, self.network.hop):
            inputs = (x[:, :, start : start + self.network.frame], *states)
            steps.append([value.numpy() for value in inputs])
            _, *states = self.network.step(*inputs)
        pairs = np.linspace(0, len(x) * len(steps) - 1, len(x)).astype(int)
        return [
            {
                name: value[pair // len(steps)][None]
                for name, value in zip(self.inputs, steps[pair % len(steps)], strict=True)
            }
            for pair in pairs
        ]


def read_samples(path: Path) -> np.ndarray:
    """Read the calibration samples from the file `path`: float32 [N, *shape] in raw units."""
    with np.load(path) as arrays:
        samples: np.ndarray = arrays["calibration"]
    return samples


def check_quantised(graph: Graph, elements: int) -> None:
    """Check that all weight matrices and kernels of the network's body are int8 in the quantised file.

    `elements` is the number of int8 weights in the file. If a quantizer does not support an operation in int8, it
    leaves the operation in float without a warning.

    Raises:
        ConversionError: The matrices and kernels of the body have more than `elements` weights.
    """
    expected = sum(p.numel() for name, p in graph.network.body.named_parameters() if p.dim() > 1 and "weight" in name)
    if elements < expected:
        raise ConversionError(
            "quantised file", f"{elements} weights are int8", f"int8 for all {expected} weights of the network's body"
        )
