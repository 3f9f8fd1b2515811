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


# A share below this counts as this much: an empty bin would make the index infinite.
LEAST_SHARE = 1e-4


def psi(reference: np.ndarray | list[float], counts: np.ndarray | list[int]) -> float:
    """Population stability index, sum((p - q) * ln(p / q)), of counts per bin against the reference's shares.

    reference, counts: [bins]. Shares below LEAST_SHARE are taken for it. 0.0 where nothing was counted.
    """
    total = float(np.sum(counts))
    if not total:
        return 0.0
    p = np.maximum(np.asarray(counts, dtype=np.float64) / total, LEAST_SHARE)
    q = np.maximum(np.asarray(reference, dtype=np.float64), LEAST_SHARE)
    return float(((p - q) * np.log(p / q)).sum())


def null_quantile(bins: int, counted: int, reference: int) -> float:
    """The index that 99% of samples without any drift stay below: about chi2(bins - 1) * (1/n + 1/m)
    (Yurdakul 2018). The quantile of chi2 is Wilson and Hilferty's, good to 1%.
    """
    freedom = max(bins - 1, 1)
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + 2.3263 * spread**0.5) ** 3 * (1 / counted + 1 / reference))


class Bins:
    """Bins of several features at once. `edges` [F, most] is padded with infinity, which nothing reaches."""

    def __init__(self, edges: list[list[float]]) -> None:
        self.sizes = [len(own) + 1 for own in edges]
        self.edges = np.full((len(edges), max(self.sizes, default=1) - 1), np.inf)
        for row, own in enumerate(edges):
            self.edges[row, : len(own)] = own

    def locate(self, values: np.ndarray) -> np.ndarray:
        """Which bin each value [B, F] falls into, int64 [B, F]; as `bin_counts` counts them."""
        found: np.ndarray = (values[:, :, None] >= self.edges[None]).sum(axis=2)
        return found

    def counts(self, found: np.ndarray) -> np.ndarray:
        """int64 [F, bins] of what `find` gave; the bins beyond a feature's own are empty."""
        width = self.edges.shape[1] + 1
        flat = found + np.arange(len(self.sizes)) * width
        return np.bincount(flat.ravel(), minlength=len(self.sizes) * width).reshape(-1, width).astype(np.int64)
