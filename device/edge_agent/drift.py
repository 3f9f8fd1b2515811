"""Features of a sample that show drift, and their counts per fixed bin. The same code makes the reference and
watches on the device. numpy only.
"""

from __future__ import annotations

import numpy as np

STATISTICS = ("mean", "std")


def features(x: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of each channel of raw samples.

    x: [B, C, ...] in raw units. Returns float64 [B, 2 * C]: mean and std of channel 0, then of channel 1, ...
    """
    flat = np.asarray(x, dtype=np.float64).reshape(x.shape[0], x.shape[1], -1)
    return np.stack([flat.mean(axis=2), flat.std(axis=2)], axis=2).reshape(x.shape[0], -1)


def bin_counts(values: np.ndarray, edges: np.ndarray | list[float]) -> np.ndarray:
    """How many values fall into each bin. Bin i holds edges[i-1] <= value < edges[i]; the outer bins are open.

    values: [N]; edges: [bins - 1], ascending. Returns int64 [bins]. A value that is no number is in no bin, so
    N minus the sum of the counts is how many of these there were.
    """
    numbers = np.asarray(values)[~np.isnan(values)]
    found = np.searchsorted(np.asarray(edges), numbers, side="right")
    return np.bincount(found, minlength=len(edges) + 1).astype(np.int64)
