"""Decide whether the latest samples drift, and which of them cause it: capture keeps those samples."""

from __future__ import annotations

import numpy as np

from edge_agent.inference.loading import LoadedRelease
from edge_agent.monitoring.drift import null_quantile, psi
from edge_agent.monitoring.release_statistics import ReleaseStatistics

WINDOW = 1000  # samples per window; a window is judged when it is full, so that a short burst is not drift
LEAST_PSI = 0.2


class DriftWindow:
    """Bin counts of the latest samples of one release.

    A feature drifts if its PSI exceeds both LEAST_PSI and the value that 99% of windows without drift stay below.
    """

    def __init__(self, loaded: LoadedRelease, window: int = WINDOW) -> None:
        self.loaded, self.window = loaded, window
        self._statistics = ReleaseStatistics(loaded, "")
        width = self._statistics.bins.edges.shape[1] + 1
        self._counts = np.zeros((len(self._statistics.features), width), np.int64)
        self._counted = 0
        # bool [F, bins]: the bin with the largest excess of samples, for each feature that drifted in the last window
        self.excess_bins = np.zeros((len(self._statistics.features), width), bool)

    def add(self, x: np.ndarray) -> np.ndarray | None:
        """Count samples [B, *shape]. Return which of them are in an excess bin, bool [B].

        Returns None if the release has no drift reference.
        """
        if not self._statistics.features:
            return None
        bins = self._statistics.locate(x)
        self._counts += self._statistics.bins.counts(bins)
        self._counted += len(x)
        if self._counted >= self.window:
            self._judge()
        in_excess: np.ndarray = self.excess_bins[np.arange(bins.shape[1]), bins].any(axis=1)
        return in_excess

    def _judge(self) -> None:
        """Find the excess bins of the full window and start the next one."""
        self.excess_bins[:] = False
        for i, (feature, size) in enumerate(zip(self._statistics.features, self._statistics.bins.sizes, strict=True)):
            counts, ratios = self._counts[i, :size], np.asarray(feature["ratios"])
            noise = null_quantile(size, self._counted, max(self._statistics.reference_samples, 1))
            if psi(ratios, counts) > max(LEAST_PSI, noise):
                excess = counts / self._counted - ratios
                self.excess_bins[i, int(excess.argmax())] = True
        self._counts[:] = 0
        self._counted = 0
