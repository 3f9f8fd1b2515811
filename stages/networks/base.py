"""The base class of all networks. A network consists of a preprocessing layer and a body, which computes the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stages.core.dataset import SampleSpec
from stages.core.errors import ParameterError
from stages.networks.preprocess import Preprocess
from stages.params import locate_parameter


class Network(nn.Module):
    """A network that computes logits [B, classes] from samples in raw units [B, *spec.shape].

    `stages.networks.rebuild` builds the same architecture again from `spec`, `kind` and `sizes()`.
    """

    kind: str
    body: Any

    def __init__(self, spec: SampleSpec, bins: int) -> None:
        super().__init__()
        if bins and spec.kind != "series":
            raise ParameterError(
                locate_parameter("train.quantile_bins"),
                f"found {bins} for samples of kind {spec.kind}",
                "0, because quantile bins are for series only",
                "set train.quantile_bins to 0",
            )
        self.spec, self.bins = spec, bins
        self.preprocess = Preprocess(spec, bins)

    @property
    def body_shape(self) -> tuple[int, ...]:
        """The shape of one preprocessed sample, without the batch dimension."""
        with torch.no_grad():
            return tuple(self.preprocess(torch.zeros(1, *self.spec.shape)).shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(self.preprocess(x))
        return logits

    def sizes(self) -> dict[str, Any]:
        """Return the constructor's arguments, without `spec`, for a new network with the same sizes as this network.

        Pruning may have reduced the sizes since this network was built.
        """
        raise NotImplementedError
