"""GRU and LSTM, unidirectional, so that a device can run them one step at a time.

Cells are written as linear layers: a converter that meets a recurrent operator unrolls or refuses it, one
step of linear layers it keeps small.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.core.dataset import SampleSpec
from stages.core.errors import ParameterError
from stages.networks.base import Network
from stages.params import locate_parameter


class Rnn(Network):
    """`frame` samples of the time axis per step, a step every `hop`; the time axis is the second of a sample.

    Images: rows from top to bottom. Spectral features: one frame of them per step, so that `frame` and `hop`
    are the features' own and the parameters of that name are not read.
    The classifier reads the output of the last step (`pool: last`), or of every unit its highest output so far, 0 at
    least (`pool: max`), which does not fade while silence follows; that is one more state.
    """

    kind = "rnn"

    def __init__(
        self,
        spec: SampleSpec,
        *,
        bins: int,
        cell: str,
        hidden: list[int],
        frame: int,
        hop: int,
        pool: str,
        dropout: float,
    ) -> None:
        super().__init__(spec, bins)
        if spec.features is not None:
            frame, hop = spec.features.frame, spec.features.hop
        self.frame, self.hop = frame, hop
        self.cell, self.pool, self.dropout = cell, pool, dropout
        self.steps = (spec.shape[1] - frame) // hop + 1
        if self.steps < 1:
            raise ParameterError(
                locate_parameter("train.rnn.frame"),
                f"found {frame}, longer than a sample of shape {spec.shape}",
                f"at most {spec.shape[1]}",
                "lower it",
            )
        with torch.no_grad():
            width = self.preprocess(torch.zeros(1, *self.frame_shape)).numel()
        self.body = RnnBody(width, len(spec.classes), cell, hidden, pool, dropout)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """What one step reads, without the batch: [C, frame] or for images [C, frame, W]."""
        return (self.spec.shape[0], self.frame, *self.spec.shape[2:])

    def initial_states(self, batch: int) -> tuple[Tensor, ...]:
        """Zeros [batch, hidden]: per layer the output, for LSTM then the cell; at the end the highest output."""
        states: tuple[Tensor, ...] = self.body.initial_states(batch)
        return states

    def step(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """One frame [B, C, frame] (images [B, C, frame, W]) in raw units -> (logits, *new states)."""
        stepped: tuple[Tensor, ...] = self.body.step(self.preprocess(x).flatten(1), *states)
        return stepped

    def forward(self, x: Tensor) -> Tensor:
        """The same as looping `step` over the frames, with the input's part of all steps done at once."""
        z = self.preprocess(x)
        if self.spec.features is not None:
            frames = z.flatten(1, 2).transpose(1, 2)
        else:
            starts = range(0, self.steps * self.hop, self.hop)
            frames = torch.stack([z[:, :, start : start + self.frame].flatten(1) for start in starts], dim=1)
        logits: Tensor = self.body(frames)
        return logits

    def sizes(self) -> dict[str, Any]:
        return {
            "bins": self.bins,
            "cell": self.cell,
            "hidden": [layer.hidden for layer in self.body.layers],
            "frame": self.frame,
            "hop": self.hop,
            "pool": self.pool,
            "dropout": self.dropout,
        }


class RnnBody(nn.Module):
    """Layers of cells, dropout between them, a classifier on the last one's output. Reads [B, steps, width]."""

    def __init__(self, width: int, classes: int, cell: str, hidden: list[int], pool: str, dropout: float) -> None:
        super().__init__()
        self.highest = pool == "max"
        kind = {"gru": GruCell, "lstm": LstmCell}[cell]
        inputs = [width, *hidden[:-1]]
        self.layers: Any = nn.ModuleList(kind(wide, out) for wide, out in zip(inputs, hidden, strict=True))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden[-1], classes)

    def initial_states(self, batch: int) -> tuple[Tensor, ...]:
        weight = self.classifier.weight
        widths = [layer.hidden for layer in self.layers for _ in range(layer.states)]
        if self.highest:
            widths.append(self.layers[-1].hidden)
        return tuple(weight.new_zeros(batch, width) for width in widths)

    def step(self, z: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """One frame [B, width] -> (logits, *new states)."""
        after: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            own = states[number * layer.states : (number + 1) * layer.states]
            new = layer(z, *own)
            after.extend(new)
            z = self.dropout(new[0])
        if self.highest:
            z = torch.maximum(z, states[-1])
            after.append(z)
        return (self.classifier(z), *after)

    def forward(self, frames: Tensor) -> Tensor:
        z = frames
        for layer in self.layers:
            z = self.dropout(layer.sequence(z))
        pooled = z.amax(dim=1).clamp_min(0) if self.highest else z[:, -1]
        logits: Tensor = self.classifier(pooled)
        return logits


class Cell(nn.Module):
    """One linear layer per gate, for the input and for the state. `sequence` fuses them for training speed."""

    gates: tuple[str, ...]
    states: int

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inputs: Any = nn.ModuleList(nn.Linear(width, hidden) for _ in self.gates)
        self.recurrent: Any = nn.ModuleList(nn.Linear(hidden, hidden) for _ in self.gates)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    @property
    def hidden(self) -> int:
        return int(self.recurrent[0].out_features)

    def forward(self, z: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Input [B, width] and states [B, hidden] -> new states; the first is the output."""
        seen = [gate(z) for gate in self.inputs]
        held = [gate(states[0]) for gate in self.recurrent]
        return self.combine(seen, held, states)

    def sequence(self, z: Tensor) -> Tensor:
        """Inputs [B, steps, width] -> outputs [B, steps, hidden], from zero states."""
        seen = F.linear(z, *_fused(self.inputs))
        weight, bias = _fused(self.recurrent)
        states = tuple(z.new_zeros(z.shape[0], self.hidden) for _ in range(self.states))
        outputs = []
        for now in seen.unbind(1):
            held = F.linear(states[0], weight, bias)
            states = self.combine(now.chunk(len(self.gates), 1), held.chunk(len(self.gates), 1), states)
            outputs.append(states[0])
        return torch.stack(outputs, dim=1)

    def combine(self, seen: Any, held: Any, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        raise NotImplementedError


class GruCell(Cell):
    """Cho et al. 2014, with the reset applied after the matrix product, as torch.nn.GRU computes it."""

    gates = ("reset", "update", "candidate")
    states = 1

    def combine(self, seen: Any, held: Any, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        reset = torch.sigmoid(seen[0] + held[0])
        update = torch.sigmoid(seen[1] + held[1])
        candidate = torch.tanh(seen[2] + reset * held[2])
        return (candidate + update * (states[0] - candidate),)


class LstmCell(Cell):
    """Hochreiter & Schmidhuber 1997 with forget gates (Gers et al. 2000), as torch.nn.LSTM computes it."""

    gates = ("input", "forget", "candidate", "output")
    states = 2

    def combine(self, seen: Any, held: Any, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        enter, forget, candidate, leave = (a + b for a, b in zip(seen, held, strict=True))
        memory = torch.sigmoid(forget) * states[1] + torch.sigmoid(enter) * torch.tanh(candidate)
        return torch.sigmoid(leave) * torch.tanh(memory), memory


def _fused(gates: Any) -> tuple[Tensor, Tensor]:
    return torch.cat([gate.weight for gate in gates]), torch.cat([gate.bias for gate in gates])
