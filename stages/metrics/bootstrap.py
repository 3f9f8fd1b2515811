"""The cluster bootstrap: resampling of test samples by whole groups (experiments, speakers).

Samples of one group are similar, even more where windows overlap: a thousand samples may come from seven experiments.
Drawing whole groups with replacement keeps similar samples together, so that the spread of the replicates is that
between groups (Davison & Hinkley 1997, section 3.8; Field & Welsh 2007, "Bootstrapping clustered data", J. R. Stat.
Soc. B 69). The method needs many groups: with fewer than about ten, intervals are still too narrow (Cameron, Gelbach &
Miller 2008).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

RESAMPLES = 2000  # bootstrap replicates: the ends of a 95% interval repeat to about a twentieth of its width
CELLS = 10_000_000  # numbers that a bootstrap holds in memory at once
FEW = 10  # groups


class Clusters:
    """The groups of N samples, and their bootstrap replicates."""

    def __init__(self, groups: np.ndarray, seed: int, width: int) -> None:
        """Count the groups.

        Args:
            groups: Name of each sample's group [N].
            seed: Decides which groups are drawn.
            width: The largest `number` of later calls of `totals`; it limits the memory.
        """
        names, self._member = np.unique(groups, return_inverse=True)
        self.count, self._seed = len(names), seed
        self._portions = portions(max(len(groups), width))

    @property
    def single(self) -> bool:
        """True where each sample is the only one of its group: then samples are drawn, not groups."""
        return self.count == len(self._member)

    def totals(self, kinds: np.ndarray, number: int, values: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Yield RESAMPLES bootstrap replicates in portions [*, number]; the same groups are drawn in every call.

        Args:
            kinds: Kind of each sample, an integer below `number` [N].
            number: How many kinds there are.
            values: If given, a replicate has the sum of the values [N] of each kind, else the count of samples.
        """
        # Samples of the same group and kind are one entry. Entries are sorted by kind, so that a kind is a range.
        pairs, inverse = np.unique(kinds.astype(np.int64) * self.count + self._member, return_inverse=True)
        weights = np.bincount(inverse, weights=values)
        present, starts = np.unique(pairs // self.count, return_index=True)
        rng = np.random.default_rng(self._seed)
        for size in self._portions:
            drawn = rng.integers(self.count, size=(size, self.count)) + self.count * np.arange(size)[:, None]
            times = np.bincount(drawn.ravel(), minlength=size * self.count).reshape(size, self.count)
            result = np.zeros((size, number))
            result[:, present] = np.add.reduceat(times[:, pairs % self.count] * weights, starts, axis=1)
            yield result

    def describe(self) -> dict[str, Any]:
        """Return the description of the intervals for a report: the unit that was drawn, its number, and a caveat."""
        if self.single:
            return {"unit": "sample", "units": self.count, "caveat": None}
        caveat = None
        if self.count == 1:
            caveat = "all test samples are of one group: the intervals do not cover other groups"
        elif self.count < FEW:
            caveat = f"{self.count} groups are few: the intervals are rough, and rather too narrow"
        return {"unit": "group", "units": self.count, "caveat": caveat}


def portions(cells: int) -> list[int]:
    """Split RESAMPLES into portions; a portion with `cells` numbers per replicate has at most CELLS numbers."""
    size = max(1, min(RESAMPLES, CELLS // cells))
    return [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]
