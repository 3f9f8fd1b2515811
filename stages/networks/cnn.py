"""Convolution, batch norm, ReLU, max pool; then one hidden layer and a classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from stages.core.dataset import SampleSpec
from stages.core.errors import ParameterError
from stages.networks.base import Network
from stages.params import locate_parameter


class Cnn(Network):
    """2-D for images and for spectral features, 1-D for raw series and raw audio.

    Every block halves the resolution (`pool` 2) or divides it by `pool`; `head` is `flatten` (where in the
    sample something is matters) or `average` (it does not, and the head stays small).
    """

    kind = "cnn"

    def __init__(
        self,
        spec: SampleSpec,
        *,
        bins: int,
        channels: list[int],
        kernel: int,
        pool: int,
        head: str,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__(spec, bins)
        self.kernel, self.pool, self.head, self.dropout = kernel, pool, head, dropout
        self.body = CnnBody(self.body_shape, len(spec.classes), channels, kernel, pool, head, hidden, dropout)

    def sizes(self) -> dict[str, Any]:
        return {
            "bins": self.bins,
            "channels": [block[0].out_channels for block in self.body.blocks],
            "kernel": self.kernel,
            "pool": self.pool,
            "head": self.head,
            "hidden": self.body.hidden.out_features,
            "dropout": self.dropout,
        }


class CnnBody(nn.Module):
    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        channels: list[int],
        kernel: int,
        pool: int,
        head: str,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        flat = len(shape) == 3
        convolution, norm, maximum = (
            (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d) if flat else (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d)
        )
        extent = list(shape[1:])
        width = shape[0]
        self.blocks: Any = nn.ModuleList()
        for number, out in enumerate(channels, start=1):
            if min(extent) < pool:
                raise ParameterError(
                    locate_parameter("train.cnn.channels"),
                    f"found {len(channels)} blocks; after {number - 1} of them a sample of {list(shape)} "
                    f"is only {extent} large, too small to be pooled by {pool}",
                    remedy="remove blocks, or lower train.cnn.pool",
                )
            # No bias: the batch norm that follows has one, and export folds both into the convolution.
            self.blocks.append(
                nn.Sequential(
                    convolution(width, out, kernel, padding=kernel // 2, bias=False),
                    norm(out),
                    nn.ReLU(),
                    maximum(pool),
                )
            )
            width, extent = out, [size // pool for size in extent]
        places = 1
        for size in extent:
            places *= size
        self.average = tuple(range(2, 2 + len(extent))) if head == "average" else None
        self.hidden = nn.Linear(width if self.average else width * places, hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        x = x.flatten(1) if self.average is None else x.mean(dim=self.average)
        logits: Tensor = self.classifier(self.dropout(self.relu(self.hidden(x))))
        return logits
