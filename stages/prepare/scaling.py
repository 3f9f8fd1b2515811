"""Compute each channel's scaling from the training split. The network applies this scaling to its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from stages.core.dataset import Channel, Scaling
from stages.core.errors import ContractError

BLOCK_ELEMENTS = 1 << 22  # maximum number of array elements in memory at the same time


def fit_scaling(x: np.ndarray, channels: list[Channel], method: Literal["none", "normalise", "standardise"]) -> Scaling:
    """Compute the scaling (x - center) / scale of each channel, in two passes over blocks in float64.

    Args:
        x: Training samples [N, C, ...], or the rows [R, C] of a series, in raw units.
        channels: The C channels.
        method: "none" leaves values as they are; "normalise" maps the smallest value to 0 and the largest to 1;
            "standardise" gives mean 0 and standard deviation 1.

    Raises:
        ContractError: A channel is constant in the training split.
    """
    low, high = np.full(len(channels), np.inf), np.full(len(channels), -np.inf)
    total, count = np.zeros(len(channels)), 0
    for block in _blocks(x):
        low, high = np.minimum(low, block.min(axis=(0, 2))), np.maximum(high, block.max(axis=(0, 2)))
        total += block.sum(axis=(0, 2))
        count += block.shape[0] * block.shape[2]
    for index in np.flatnonzero(low == high):
        raise ContractError(
            f"channel {channels[index].name}",
            f"its value is {low[index]:g} in the whole training split",
            "a channel whose values vary, because a constant channel has no information and cannot be standardised",
            "collect more groups, or remove the channel (data.channels and validate.columns)",
        )
    if method == "none":
        return Scaling(method=method, center=[0.0] * len(channels), scale=[1.0] * len(channels))
    if method == "normalise":
        return Scaling(method=method, center=_rounded(low), scale=_rounded(high - low))
    mean, squares = total / count, np.zeros(len(channels))
    for block in _blocks(x):
        squares += ((block - mean[None, :, None]) ** 2).sum(axis=(0, 2))
    return Scaling(method=method, center=_rounded(mean), scale=_rounded(np.sqrt(squares / count)))


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    """Yield consecutive blocks of `x` as float64 [n, C, values per channel], with a limited number of elements."""
    rows = max(1, BLOCK_ELEMENTS // int(np.prod(x.shape[1:])))
    for start in range(0, len(x), rows):
        block = np.asarray(x[start : start + rows], dtype=np.float64)
        yield block.reshape(block.shape[0], block.shape[1], -1)


def _rounded(values: np.ndarray) -> list[float]:
    """Round each value to nine significant digits, which is enough to distinguish all float32 values."""
    return [float(f"{value:.9g}") for value in values]
