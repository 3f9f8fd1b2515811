"""Compute the features by which drift is detected, and count how many samples are in each bin of a feature.

The pipeline uses this module to write the drift reference, and the device uses it to compare samples with that
reference. The module needs only numpy.
"""

from __future__ import annotations

import numpy as np

STATISTICS = ("mean", "std")


def features(x: np.ndarray) -> np.ndarray:
    """Return the mean and the standard deviation of each channel of each sample.

    x: samples in raw units, [B, C, ...]. Returns float64 [B, 2 * C]: mean and standard deviation of channel 0, then of
    channel 1, ...
    """
    flat = np.asarray(x, dtype=np.float64).reshape(x.shape[0], x.shape[1], -1)
    return np.stack([flat.mean(axis=2), flat.std(axis=2)], axis=2).reshape(x.shape[0], -1)


def bin_counts(values: np.ndarray, edges: np.ndarray | list[float]) -> np.ndarray:
    """Count the values in each bin. Bin i has the values with edges[i-1] <= value < edges[i].

    The first bin has no lower bound, and the last bin has no upper bound.

    values: [N]; edges: [bins - 1], ascending. Returns int64 [bins]. NaN belongs to no bin, so N minus the sum of the
    counts is the number of NaN values.
    """
    numbers = np.asarray(values)[~np.isnan(values)]
    bins = np.searchsorted(np.asarray(edges), numbers, side="right")
    return np.bincount(bins, minlength=len(edges) + 1).astype(np.int64)


# Smaller ratios are replaced with this ratio, because an empty bin would make the index infinite.
LEAST_SHARE = 1e-4


def psi(reference: np.ndarray | list[float], counts: np.ndarray | list[int]) -> float:
    """Return the population stability index (PSI) of counts against a reference: sum((p - q) * ln(p / q)).

    reference: [bins], the fraction q of the reference in each bin. counts: [bins], the number of samples in each bin,
    from which the fractions p are computed. Fractions below LEAST_SHARE are replaced with LEAST_SHARE. Returns 0.0 if
    all counts are zero.
    """
    total = float(np.sum(counts))
    if not total:
        return 0.0
    p = np.maximum(np.asarray(counts, dtype=np.float64) / total, LEAST_SHARE)
    q = np.maximum(np.asarray(reference, dtype=np.float64), LEAST_SHARE)
    return float(((p - q) * np.log(p / q)).sum())


def null_quantile(bins: int, counted: int, reference: int) -> float:
    """Return the 99th percentile of the population stability index (PSI) of samples that do not drift.

    Without drift, the index is distributed approximately as chi2(bins - 1) * (1/n + 1/m) (Yurdakul 2018). The
    percentile of chi2 is computed with the Wilson-Hilferty approximation, which is accurate to 1%.

    Args:
        bins: Number of bins.
        counted: Number n of samples that were counted.
        reference: Number m of samples in the reference.
    """
    freedom = max(bins - 1, 1)
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + 2.3263 * spread**0.5) ** 3 * (1 / counted + 1 / reference))


class Bins:
    """The bins of several drift features, as one array of bin edges.

    `edges` has one row for each feature. Shorter rows are padded with infinity, which no value reaches.
    """

    def __init__(self, edges: list[list[float]]) -> None:
        self.sizes = [len(row) + 1 for row in edges]
        self.edges = np.full((len(edges), max(self.sizes, default=1) - 1), np.inf)
        for i, row in enumerate(edges):
            self.edges[i, : len(row)] = row

    def locate(self, values: np.ndarray) -> np.ndarray:
        """Return the index of each value's bin, int64 [B, F], for `values` [B, F]. `bin_counts` defines the bins."""
        bins: np.ndarray = (values[:, :, None] >= self.edges[None]).sum(axis=2)
        return bins

    def counts(self, bins: np.ndarray) -> np.ndarray:
        """Return the number of samples in each bin of each feature, int64 [F, bins], padded with zeros.

        `bins` is the result of `locate`.
        """
        width = self.edges.shape[1] + 1
        flat = bins + np.arange(len(self.sizes)) * width
        return np.bincount(flat.ravel(), minlength=len(self.sizes) * width).reshape(-1, width).astype(np.int64)
