"""A convolutional network, which consists of blocks, a hidden layer and a classifier.

Each block has a convolution, a batch norm, a ReLU and a max pooling.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from stages.core.dataset import SampleSpec
from stages.core.errors import ParameterError
from stages.networks.base import Network
from stages.params import locate_parameter


class Cnn(Network):
    """A convolutional network, which is 2-D for images and spectral features, and 1-D for series and raw audio."""

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
        """Build the network with random weights.

        Args:
            spec: The description of a sample.
            bins: Number of quantile bins per channel of a series (see `preprocess.QuantileBins`); 0 for no bins.
            channels: Number of output channels of each block.
            kernel: Length of each side of the convolution kernels; an odd number.
            pool: Window size of the max pooling; each block divides the length of every axis by this number.
            head: How the last block's output becomes a vector. "flatten" keeps the values of every position; "average"
                takes the mean over all positions, so that the hidden layer needs fewer weights.
            hidden: Number of units in the hidden layer.
            dropout: Probability that a unit of the hidden layer is dropped in training.

        Raises:
            ParameterError: The sample is too small for this number of blocks.
        """
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
    """The layers of a CNN after preprocessing: preprocessed samples [B, *shape] -> logits [B, classes]."""

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
        """Build the layers with random weights.

        Args:
            shape: Shape of one preprocessed sample: [C, T] or [C, H, W].
            classes: Number of classes.
            channels: As in `Cnn`.
            kernel: As in `Cnn`.
            pool: As in `Cnn`.
            head: As in `Cnn`.
            hidden: As in `Cnn`.
            dropout: As in `Cnn`.

        Raises:
            ParameterError: The sample is too small for this number of blocks.
        """
        super().__init__()
        planar = len(shape) == 3
        convolution, norm, maximum = (
            (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d) if planar else (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d)
        )
        extent = list(shape[1:])
        width = shape[0]
        self.blocks: Any = nn.ModuleList()
        for number, out in enumerate(channels, start=1):
            if min(extent) < pool:
                raise ParameterError(
                    locate_parameter("train.cnn.channels"),
                    f"found {len(channels)} blocks, but after {number - 1} of them, a sample of shape {list(shape)} "
                    f"is reduced to a resolution of {extent}, which is less than the pool size {pool}",
                    remedy="remove blocks, or lower train.cnn.pool",
                )
            # No bias, because the batch norm that follows has one. Export folds the batch norm into the convolution.
            self.blocks.append(
                nn.Sequential(
                    convolution(width, out, kernel, padding=kernel // 2, bias=False),
                    norm(out),
                    nn.ReLU(),
                    maximum(pool),
                )
            )
            width, extent = out, [size // pool for size in extent]
        positions = 1
        for size in extent:
            positions *= size
        self.average = tuple(range(2, 2 + len(extent))) if head == "average" else None
        self.hidden = nn.Linear(width if self.average else width * positions, hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        x = x.flatten(1) if self.average is None else x.mean(dim=self.average)
        logits: Tensor = self.classifier(self.dropout(self.relu(self.hidden(x))))
        return logits
