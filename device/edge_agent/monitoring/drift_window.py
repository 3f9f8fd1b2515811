"""Decide whether the latest samples drift, and find the samples that cause the drift, so that they can be captured."""

from __future__ import annotations

import numpy as np

from edge_agent.inference.loading import LoadedRelease
from edge_agent.monitoring.drift import null_quantile, psi
from edge_agent.monitoring.release_statistics import ReleaseStatistics

WINDOW = 1000  # samples per window; only a full window is judged, so that a few unusual samples do not count as drift
LEAST_PSI = 0.2


class DriftWindow:
    """Detect drift in the latest samples of one release, by counting the samples in the bins of each drift feature.

    A feature drifts if its population stability index (PSI) exceeds both LEAST_PSI and the 99th percentile of the
    PSI that windows without drift would have.
    """

    def __init__(self, loaded: LoadedRelease, window: int = WINDOW) -> None:
        self.loaded, self.window = loaded, window
        self._statistics = ReleaseStatistics(loaded, "")
        width = self._statistics.bins.edges.shape[1] + 1
        self._counts = np.zeros((len(self._statistics.features), width), np.int64)
        self._counted = 0
        # bool [F, bins]: for each feature that drifted in the last full window, the bin whose fraction of samples
        # exceeds the fraction in the reference by the largest amount
        self.excess_bins = np.zeros((len(self._statistics.features), width), bool)

    def add(self, x: np.ndarray) -> np.ndarray | None:
        """Count the samples `x` [B, *shape], and return which of them are in a bin that caused drift: bool [B].

        The bins that caused drift are the `excess_bins` of the last full window. Returns None if the release has no
        drift reference.
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
        """Set `excess_bins` to the bins that cause drift in the full window, and start the next window."""
        self.excess_bins[:] = False
        for i, (feature, size) in enumerate(zip(self._statistics.features, self._statistics.bins.sizes, strict=True)):
            counts, ratios = self._counts[i, :size], np.asarray(feature["ratios"])
            noise = null_quantile(size, self._counted, max(self._statistics.reference_samples, 1))
            if psi(ratios, counts) > max(LEAST_PSI, noise):
                excess = counts / self._counted - ratios
                self.excess_bins[i, int(excess.argmax())] = True
        self._counts[:] = 0
        self._counted = 0
