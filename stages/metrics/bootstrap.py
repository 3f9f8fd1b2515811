"""The cluster bootstrap, which resamples whole groups of test samples (for example experiments or speakers).

Samples of one group are similar, especially if their windows overlap. A thousand samples can come from only seven
experiments. Whole groups are drawn with replacement, so similar samples stay together, and the spread of the replicates
reflects the differences between groups (Davison & Hinkley 1997, section 3.8; Field & Welsh 2007, "Bootstrapping
clustered data", J. R. Stat. Soc. B 69). The method needs many groups: with fewer than about ten, the intervals are
still too narrow (Cameron, Gelbach & Miller 2008).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

RESAMPLES = 2000  # bootstrap replicates; with another seed, the ends of a 95% interval move by about 5% of its width
CELLS = 10_000_000  # maximum number of values that a bootstrap holds in memory at the same time
FEW = 10  # with fewer groups than this, the report warns that the intervals are rough


class Clusters:
    """The groups of N samples. Each bootstrap replicate consists of whole groups that are drawn with replacement."""

    def __init__(self, groups: np.ndarray, seed: int, width: int) -> None:
        """Find the distinct groups of the samples.

        Args:
            groups: Name of each sample's group [N].
            seed: Seed of the random draws of groups.
            width: The largest `number` that will be passed to `totals`; it limits the replicates in each array.
        """
        names, self._member = np.unique(groups, return_inverse=True)
        self.count, self._seed = len(names), seed
        self._portions = portions(max(len(groups), width))

    @property
    def single(self) -> bool:
        """True if every group has exactly one sample, so that the samples can be treated as independent."""
        return self.count == len(self._member)

    def totals(self, kinds: np.ndarray, number: int, values: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Yield RESAMPLES bootstrap replicates of the total of each kind of sample, in several arrays [*, number].

        The total of a kind is the number of its samples, or the sum of their values if `values` is given. Every call
        draws the same groups.

        Args:
            kinds: Kind of each sample [N]: an integer below `number`, for example a cell of the confusion matrix.
            number: Number of kinds.
            values: Value of each sample [N], or None to count the samples.
        """
        # Samples of the same group and kind are combined into one entry. Entries are sorted by kind, so that the
        # entries of one kind are adjacent.
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
        """Describe the resampled units for a report: their kind (sample or group), number, and a caveat, if any."""
        if self.single:
            return {"unit": "sample", "units": self.count, "caveat": None}
        caveat = None
        if self.count == 1:
            caveat = "all test samples are of one group, so the intervals do not apply to other groups"
        elif self.count < FEW:
            caveat = f"{self.count} groups are few, so the intervals are approximate and probably too narrow"
        return {"unit": "group", "units": self.count, "caveat": caveat}


def portions(cells: int) -> list[int]:
    """Divide RESAMPLES replicates into portions that are computed one by one, and return the size of each portion.

    A replicate has `cells` values. The replicates of one portion have at most CELLS values in total, except that a
    portion always has at least one replicate.
    """
    size = max(1, min(RESAMPLES, CELLS // cells))
    return [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]
