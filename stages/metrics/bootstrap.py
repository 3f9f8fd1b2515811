"""Test samples that come in groups (windows of one experiment, clips of one speaker), drawn again group by group.

Samples of one group are alike, more so where windows overlap: what was measured on a thousand of them may rest on
seven experiments. Drawing whole groups with replacement keeps what is alike together, so the spread of the replicates
is that of other groups (Davison & Hinkley 1997, section 3.8; Field & Welsh 2007, "Bootstrapping clustered data",
J. R. Stat. Soc. B 69). It needs many groups: with fewer than about ten the intervals come out too narrow still
(Cameron, Gelbach & Miller 2008).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

RESAMPLES = 2000  # bootstrap replicates: the ends of a 95% interval repeat to about a twentieth of its width
CELLS = 10_000_000  # numbers that a bootstrap holds in memory at once
FEW = 10  # groups


class Clusters:
    """The groups of N samples. `groups`: a name for each [N]; `width`: the most kinds that `totals` is asked for."""

    def __init__(self, groups: np.ndarray, seed: int, width: int) -> None:
        names, self._member = np.unique(groups, return_inverse=True)
        self.count, self._seed = len(names), seed
        self._portions = portions(max(len(groups), width))

    @property
    def single(self) -> bool:
        """Whether every sample is a group of its own: then samples are drawn, not groups."""
        return self.count == len(self._member)

    def totals(self, kinds: np.ndarray, number: int, values: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """RESAMPLES replicates in portions, each [*, number]: how many samples of each kind it has, or the sum of
        their `values` [N]. `kinds`: of each sample, an integer below `number` [N]. The same groups are drawn each time.
        """
        # Samples of one group and one kind count together; sorted by kind, so that kinds are sums of neighbours.
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
        """What a report says of its intervals: what was drawn, of how many, and what is to be kept in mind."""
        if self.single:
            return {"unit": "sample", "units": self.count, "caveat": None}
        caveat = None
        if self.count == 1:
            caveat = "all test samples are of one group: the intervals say nothing of how it is on another"
        elif self.count < FEW:
            caveat = f"{self.count} groups are few: the intervals are rough, and rather too narrow"
        return {"unit": "group", "units": self.count, "caveat": caveat}


def portions(cells: int) -> list[int]:
    """RESAMPLES in portions of which each holds at most CELLS numbers."""
    size = max(1, min(RESAMPLES, CELLS // cells))
    return [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]
