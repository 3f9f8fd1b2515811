"""GRU and LSTM networks. They are unidirectional, so that a device can run them one step at a time.

Cells consist of linear layers, because converters reject recurrent operators or unroll them over all steps. A graph
of linear layers for a single step is small.
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
    """A recurrent network whose steps read `frame` samples each, and start `hop` samples apart on the time axis.

    The time axis is the first axis after the channels. For images, it goes over the rows from top to bottom. With
    spectral features, a step reads one frame of features, and the features' `frame` and `hop` replace the arguments.
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
        """Build the network with random weights.

        Args:
            spec: The description of a sample.
            bins: Number of quantile bins per channel of a series (see `preprocess.QuantileBins`); 0 for no bins.
            cell: "gru" or "lstm".
            hidden: Number of units in each layer.
            frame: Number of samples (for images: rows) that a step reads.
            hop: Number of samples (for images: rows) from the start of one step's frame to the start of the next.
            pool: What the classifier reads. "last" is the output of the last step. "max" is each unit's highest output
                so far, or 0 if all were negative; it is kept in an extra state. So a detection survives later silence.
            dropout: Probability that an output of a layer is dropped in training.

        Raises:
            ParameterError: A frame is longer than a sample.
        """
        super().__init__(spec, bins)
        if spec.features is not None:
            frame, hop = spec.features.frame, spec.features.hop
        self.frame, self.hop = frame, hop
        self.cell, self.pool, self.dropout = cell, pool, dropout
        self.steps = (spec.shape[1] - frame) // hop + 1
        if self.steps < 1:
            raise ParameterError(
                locate_parameter("train.rnn.frame"),
                f"found {frame}, which is longer than a sample of shape {spec.shape}",
                f"at most {spec.shape[1]}",
                "lower train.rnn.frame",
            )
        with torch.no_grad():
            width = self.preprocess(torch.zeros(1, *self.frame_shape)).numel()
        self.body = RnnBody(width, len(spec.classes), cell, hidden, pool, dropout)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of a step's input, without the batch dimension: [C, frame], or for images [C, frame, W]."""
        return (self.spec.shape[0], self.frame, *self.spec.shape[2:])

    def initial_states(self, batch: int) -> tuple[Tensor, ...]:
        """Return zeros [batch, hidden] for every state.

        The order is: for each layer, its output and (LSTM only) its cell state; then, if `pool` is "max", the highest
        outputs so far.
        """
        states: tuple[Tensor, ...] = self.body.initial_states(batch)
        return states

    def step(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Run one step on frames [B, *frame_shape] in raw units; return the logits, then the new states."""
        stepped: tuple[Tensor, ...] = self.body.step(self.preprocess(x).flatten(1), *states)
        return stepped

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of whole samples [B, *spec.shape], as `step` returns them after the last frame.

        For speed, the linear layers of the input are computed for all steps in one operation.
        """
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
    """Layers of cells with dropout after each, and a classifier: [B, steps, width] -> logits [B, classes]."""

    def __init__(self, width: int, classes: int, cell: str, hidden: list[int], pool: str, dropout: float) -> None:
        """Build the layers with random weights.

        Args:
            width: Number of values that a step reads.
            classes: Number of classes.
            cell: As in `Rnn`.
            hidden: As in `Rnn`.
            pool: As in `Rnn`.
            dropout: As in `Rnn`.
        """
        super().__init__()
        self.highest = pool == "max"
        kind = {"gru": GruCell, "lstm": LstmCell}[cell]
        inputs = [width, *hidden[:-1]]
        self.layers: Any = nn.ModuleList(kind(wide, out) for wide, out in zip(inputs, hidden, strict=True))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden[-1], classes)

    def initial_states(self, batch: int) -> tuple[Tensor, ...]:
        """Return zeros for every state, as `Rnn.initial_states` does."""
        weight = self.classifier.weight
        widths = [layer.hidden for layer in self.layers for _ in range(layer.states)]
        if self.highest:
            widths.append(self.layers[-1].hidden)
        return tuple(weight.new_zeros(batch, width) for width in widths)

    def step(self, z: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Run one step on preprocessed frames [B, width]; return the logits, then the new states."""
        new_states: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            own = states[number * layer.states : (number + 1) * layer.states]
            layer_states = layer(z, *own)
            new_states.extend(layer_states)
            z = self.dropout(layer_states[0])
        if self.highest:
            z = torch.maximum(z, states[-1])
            new_states.append(z)
        return (self.classifier(z), *new_states)

    def forward(self, frames: Tensor) -> Tensor:
        z = frames
        for layer in self.layers:
            z = self.dropout(layer.sequence(z))
        pooled = z.amax(dim=1).clamp_min(0) if self.highest else z[:, -1]
        logits: Tensor = self.classifier(pooled)
        return logits


class Cell(nn.Module):
    """The base class of recurrent cells. Each gate has one linear layer for the input and one for the state.

    `sequence` computes the linear layers of all gates in one matrix product, which makes training faster.
    """

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
        """Number of units."""
        return int(self.recurrent[0].out_features)

    def forward(self, z: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Run one step on inputs [B, width] and states [B, hidden], and return the new states.

        The first state is the output of the cell.
        """
        from_input = [gate(z) for gate in self.inputs]
        from_state = [gate(states[0]) for gate in self.recurrent]
        return self.combine(from_input, from_state, states)

    def sequence(self, z: Tensor) -> Tensor:
        """Run all steps on inputs [B, steps, width], from zero states; return the outputs [B, steps, hidden]."""
        from_inputs = F.linear(z, *_fused(self.inputs))
        weight, bias = _fused(self.recurrent)
        states = tuple(z.new_zeros(z.shape[0], self.hidden) for _ in range(self.states))
        outputs = []
        for from_input in from_inputs.unbind(1):
            from_state = F.linear(states[0], weight, bias)
            states = self.combine(from_input.chunk(len(self.gates), 1), from_state.chunk(len(self.gates), 1), states)
            outputs.append(states[0])
        return torch.stack(outputs, dim=1)

    def combine(self, from_input: Any, from_state: Any, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute the new states from the outputs of the linear layers.

        Args:
            from_input: For each gate, in the order of `gates`: output of its linear layer for the input, [B, hidden].
            from_state: For each gate, in the same order: output of its linear layer for the state, [B, hidden].
            states: The previous states, [B, hidden] each; the first is the previous output of the cell.

        Returns:
            The new states, in the same order.
        """
        raise NotImplementedError


class GruCell(Cell):
    """A gated recurrent unit (Cho et al. 2014).

    The reset gate is applied after the matrix product, as in torch.nn.GRU.
    """

    gates = ("reset", "update", "candidate")
    states = 1

    def combine(self, from_input: Any, from_state: Any, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute the new output.

        Args:
            from_input: As in `Cell.combine`.
            from_state: As in `Cell.combine`.
            states: As in `Cell.combine`.
        """
        reset = torch.sigmoid(from_input[0] + from_state[0])
        update = torch.sigmoid(from_input[1] + from_state[1])
        candidate = torch.tanh(from_input[2] + reset * from_state[2])
        return (candidate + update * (states[0] - candidate),)


class LstmCell(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gates (Gers et al. 2000)."""

    gates = ("input", "forget", "candidate", "output")
    states = 2

    def combine(self, from_input: Any, from_state: Any, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute the new output and the new cell state.

        Args:
            from_input: As in `Cell.combine`.
            from_state: As in `Cell.combine`.
            states: As in `Cell.combine`; the second is the cell state.
        """
        input_gate, forget_gate, candidate, output_gate = (a + b for a, b in zip(from_input, from_state, strict=True))
        cell = torch.sigmoid(forget_gate) * states[1] + torch.sigmoid(input_gate) * torch.tanh(candidate)
        return torch.sigmoid(output_gate) * torch.tanh(cell), cell


def _fused(gates: Any) -> tuple[Tensor, Tensor]:
    """Return the weights and biases of a linear layer that computes all gates together."""
    return torch.cat([gate.weight for gate in gates]), torch.cat([gate.bias for gate in gates])
