"""Whether the latest samples drift, and which of them are the odd ones: what capture keeps while they do."""

from __future__ import annotations

import numpy as np

from edge_agent.inference.loading import LoadedRelease
from edge_agent.monitoring.drift import null_quantile, psi
from edge_agent.monitoring.release_statistics import ReleaseStatistics

WINDOW = 1000  # samples that are looked at together; judged when full, so a short burst is no drift
LEAST_PSI = 0.2


class DriftWindow:
    """Bins of the latest samples of one release. Drift: a PSI above LEAST_PSI, and above what 99% of windows without
    drift stay below.
    """

    def __init__(self, loaded: LoadedRelease, window: int = WINDOW) -> None:
        self.loaded, self.window = loaded, window
        self._statistics = ReleaseStatistics(loaded, "")
        width = self._statistics.bins.edges.shape[1] + 1
        self._counts = np.zeros((len(self._statistics.features), width), np.int64)
        self._counted = 0
        # [F, bins]: more samples fall there than should; all False until a window drifts
        self.odd = np.zeros((len(self._statistics.features), width), bool)

    def add(self, x: np.ndarray) -> np.ndarray | None:
        """Count samples [B, *shape]; which of them are of those that make the drift, bool [B], or None where the
        release has no reference.
        """
        if not self._statistics.features:
            return None
        found = self._statistics.locate(x)
        self._counts += self._statistics.bins.counts(found)
        self._counted += len(x)
        if self._counted >= self.window:
            self._judge()
        odd: np.ndarray = self.odd[np.arange(found.shape[1]), found].any(axis=1)
        return odd

    def _judge(self) -> None:
        self.odd[:] = False
        for i, (feature, size) in enumerate(zip(self._statistics.features, self._statistics.bins.sizes, strict=True)):
            counts, ratios = self._counts[i, :size], np.asarray(feature["ratios"])
            noise = null_quantile(size, self._counted, max(self._statistics.reference_samples, 1))
            if psi(ratios, counts) > max(LEAST_PSI, noise):
                excess = counts / self._counted - ratios
                self.odd[i, int(excess.argmax())] = True
        self._counts[:] = 0
        self._counted = 0
