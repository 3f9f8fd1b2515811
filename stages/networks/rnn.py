"""GRU and LSTM networks. They are unidirectional, so that a device can run them one step at a time.

The cells are written as linear layers, because converters reject recurrent operators or unroll them over all steps. The
exported graph computes a single step with these linear layers, so it is small.
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
    """A recurrent network. Each step reads `frame` points of the time axis; the next step starts `hop` points later.

    The time axis is the first axis after the channels. For images, its points are the rows from top to bottom. For
    audio with spectral features, each step reads one frame of features, and the `frame` and `hop` of the features are
    used instead of the arguments with these names.
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
            frame: Number of points of the time axis (for images: rows) that a step reads.
            hop: Number of points of the time axis (for images: rows) from the start of one step to the start of the
                next step.
            pool: The values that the classifier reads. "last" selects the output of the last step. "max" selects the
                highest output of each unit in all steps so far, or 0 if all outputs of the unit were negative. An
                additional state keeps these maxima, so an event still affects the logits after a long silence.
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
        """Return the states before the first step: one tensor of zeros [batch, hidden] for each state.

        The states of a layer are the layer's previous output and, for an LSTM, the cell state. The states are returned
        in the order of the layers. If `pool` is "max", a final state follows: the highest output of each unit so far.
        """
        states: tuple[Tensor, ...] = self.body.initial_states(batch)
        return states

    def step(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Run one step on inputs [B, *frame_shape] in raw units, and return the logits, followed by the new states."""
        stepped: tuple[Tensor, ...] = self.body.step(self.preprocess(x).flatten(1), *states)
        return stepped

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of whole samples [B, *spec.shape]: the same logits that `step` returns for the last step.

        For speed, each cell applies its linear layers for the input to all steps in one operation.
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
    """The layers of an RNN after preprocessing: [B, steps, width] -> logits [B, classes].

    The layers are recurrent layers, each followed by dropout, and a classifier.
    """

    def __init__(self, width: int, classes: int, cell: str, hidden: list[int], pool: str, dropout: float) -> None:
        """Build the layers with random weights.

        Args:
            width: Number of preprocessed values that a step reads.
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
        """Return the states before the first step, as `Rnn.initial_states` describes them."""
        weight = self.classifier.weight
        widths = [layer.hidden for layer in self.layers for _ in range(layer.states)]
        if self.highest:
            widths.append(self.layers[-1].hidden)
        return tuple(weight.new_zeros(batch, width) for width in widths)

    def step(self, z: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Run one step on preprocessed inputs [B, width], and return the logits, followed by the new states."""
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
        """Number of units in the cell."""
        return int(self.recurrent[0].out_features)

    def forward(self, z: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Run one step on inputs [B, width] and states [B, hidden], and return the new states.

        The first state is the output of the cell.
        """
        from_input = [gate(z) for gate in self.inputs]
        from_state = [gate(states[0]) for gate in self.recurrent]
        return self.combine(from_input, from_state, states)

    def sequence(self, z: Tensor) -> Tensor:
        """Run all steps on inputs [B, steps, width], and return the outputs of all steps [B, steps, hidden].

        The states before the first step are zeros.
        """
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
            from_input: The output [B, hidden] of each gate's linear layer for the input, in the order of `gates`.
            from_state: The output [B, hidden] of each gate's linear layer for the state, in the order of `gates`.
            states: The previous states, [B, hidden] each; the first state is the previous output of the cell.

        Returns:
            The new states, in the order of `states`.
        """
        raise NotImplementedError


class GruCell(Cell):
    """A gated recurrent unit (Cho et al. 2014).

    The reset gate is applied after the matrix product, as in torch.nn.GRU.
    """

    gates = ("reset", "update", "candidate")
    states = 1

    def combine(self, from_input: Any, from_state: Any, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute the new state, which is also the output of the cell.

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
        """Compute the new states: the output of the cell, and the cell state.

        Args:
            from_input: As in `Cell.combine`.
            from_state: As in `Cell.combine`.
            states: As in `Cell.combine`; the second state is the cell state.
        """
        input_gate, forget_gate, candidate, output_gate = (a + b for a, b in zip(from_input, from_state, strict=True))
        cell = torch.sigmoid(forget_gate) * states[1] + torch.sigmoid(input_gate) * torch.tanh(candidate)
        return torch.sigmoid(output_gate) * torch.tanh(cell), cell


def _fused(gates: Any) -> tuple[Tensor, Tensor]:
    """Return the weight matrix and the bias of one linear layer that computes the linear layers of all gates."""
    return torch.cat([gate.weight for gate in gates]), torch.cat([gate.bias for gate in gates])
