"""What every network has: preprocessing as its first module, then a body."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stages.core.dataset import SampleSpec
from stages.core.errors import ParameterError
from stages.networks.preprocess import Preprocess
from stages.params import locate_parameter


class Network(nn.Module):
    """Raw units [B, *spec.shape] -> logits [B, classes]. `kind` and `sizes()` rebuild the body."""

    kind: str
    body: Any

    def __init__(self, spec: SampleSpec, bins: int) -> None:
        super().__init__()
        if bins and spec.kind != "series":
            found = f"found {bins} for samples of kind {spec.kind}"
            raise ParameterError(
                locate_parameter("train.quantile_bins"), found, "0: bins are for series only", "set it to 0"
            )
        self.spec, self.bins = spec, bins
        self.preprocess = Preprocess(spec, bins)

    @property
    def body_shape(self) -> tuple[int, ...]:
        """The shape of one sample as the body reads it, without the batch."""
        with torch.no_grad():
            return tuple(self.preprocess(torch.zeros(1, *self.spec.shape)).shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(self.preprocess(x))
        return logits

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments that give a body of the present sizes, also after pruning."""
        raise NotImplementedError
