"""The torch module that is exported, its inputs and its description: the same for every converter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.core.errors import ConversionError
from stages.networks import Network, load

# Preprocessing stays in float inside an int8 file: one scale for channels of different ranges would erase
# the small ones. Everything below a module of this name is left alone.
FLOAT_SCOPE = "preprocess"


class Step(nn.Module):
    """One step of a recurrent network: (frame, *states) -> (logits, *new states).

    Converters unroll a loop over time; a single step stays as small as its weights.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        stepped: tuple[Tensor, ...] = self.network.step(x, *states)
        return stepped


@dataclass(frozen=True)
class Graph:
    """What a converter traces. `example` holds one sample (batch 1) per input."""

    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: list[str]
    outputs: list[str]
    recurrent: dict[str, Any] | None
    network: Any

    @classmethod
    def read(cls, path: Path) -> Graph:
        """Of the network in `path`. Raises StageError."""
        network: Any = load(path)
        whole = torch.zeros(1, *network.spec.shape)
        if not hasattr(network, "step"):
            return cls(network, (whole,), ["input"], ["output"], None, network)
        states = network.initial_states(1)
        described: list[dict[str, Any]] = [
            {"input": f"state_{i}", "output": f"next_state_{i}", "shape": list(state.shape[1:])}
            for i, state in enumerate(states)
        ]
        return cls(
            Step(network).eval(),
            (whole[:, :, : network.frame], *states),
            ["input", *(state["input"] for state in described)],
            ["output", *(state["output"] for state in described)],
            {"frame": network.frame, "hop": network.hop, "states": described},
            network,
        )

    def io(self, runtime: str) -> dict[str, Any]:
        """The description that the device's runtime reads, of a file whose inputs and outputs are float32."""
        spec = self.network.spec
        return {
            "runtime": runtime,
            "input": {"name": "input", "shape": list(spec.shape), "dtype": "float32"},
            "output": {"name": "output", "shape": [len(spec.classes)], "dtype": "float32", "activation": "logits"},
            "recurrent": self.recurrent,
        }

    @torch.no_grad()
    def feeds(self, samples: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Calibration inputs, batch 1 each, by name, from samples [N, *shape].

        Recurrent: as many as samples, spread evenly over all their steps, with the states that the network
        really has there.
        """
        x = torch.from_numpy(samples)
        if self.recurrent is None:
            return [{"input": sample[None]} for sample in samples]
        states, seen = self.network.initial_states(len(x)), []
        for start in range(0, x.shape[2] - self.network.frame + 1, self.network.hop):
            inputs = (x[:, :, start : start + self.network.frame], *states)
            seen.append([value.numpy() for value in inputs])
            _, *states = self.network.step(*inputs)
        pairs = np.linspace(0, len(x) * len(seen) - 1, len(x)).astype(int)
        return [
            {
                name: value[pair // len(seen)][None]
                for name, value in zip(self.inputs, seen[pair % len(seen)], strict=True)
            }
            for pair in pairs
        ]


def read_samples(path: Path) -> np.ndarray:
    """The calibration samples of a request, float32 [N, *shape]."""
    with np.load(path) as arrays:
        samples: np.ndarray = arrays["calibration"]
    return samples


def check_quantised(graph: Graph, elements: int) -> None:
    """Raises ConversionError where fewer values are int8 than the body's matrices and kernels have.

    A quantizer that knows no int8 form of an operation leaves it in float, and says nothing.
    """
    expected = sum(p.numel() for name, p in graph.network.body.named_parameters() if p.dim() > 1 and "weight" in name)
    if elements < expected:
        raise ConversionError("quantised file", f"{elements} weights are int8", f"all {expected} of the body's")
