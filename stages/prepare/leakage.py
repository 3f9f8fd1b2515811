"""What lies in two splits: a copy that is trained on and then tested on.

Looked for while splits are written, in a few bytes of each sample or run of rows.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from stages.core.dataset import SPLITS
from stages.core.errors import ContractError

EXPECTED = "no sample in two splits: a score on what was trained on says nothing"
REMEDY = "take one of the two out of its source, or give both the same group (data.group)"


class SampleFingerprints:
    """Samples of all splits, by 8 bytes each."""

    def __init__(self) -> None:
        self._codes: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.uint64)] for name in SPLITS}

    def add(self, split: str, x: np.ndarray) -> None:
        """x: [N, ...], the next samples of a split, as they are written."""
        digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in x)
        self._codes[split].append(np.frombuffer(digests, np.uint64))

    def refuse_duplicates(self, prepared: Path, groups: dict[str, np.ndarray], names: list[str]) -> None:
        """Raise ContractError where two splits hold an equal sample.

        groups: per split int [N], a number of `names` for each sample. Equal codes are looked at: they may differ.
        """
        codes = {name: np.concatenate(parts) for name, parts in self._codes.items()}
        found: list[str] = []
        for i, first in enumerate(SPLITS):
            for second in SPLITS[i + 1 :]:
                equal = _equal_samples(prepared, first, second, codes)
                if equal:
                    a, b = equal[0]
                    found.append(
                        f"{len(equal)} sample(s) of {second} are in {first} too: one of group "
                        f"{names[groups[second][b]]!r} is the same as one of group {names[groups[first][a]]!r}"
                    )
        if found:
            raise ContractError("data/validated", "; ".join(found), EXPECTED, REMEDY)


def _equal_samples(prepared: Path, first: str, second: str, codes: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """Places (in `first`, in `second`) of equal samples, one pair for each sample of `second`."""
    shared, at, _ = np.intersect1d(codes[first], codes[second], return_indices=True)
    if not len(shared):
        return []
    a, b = (np.load(prepared / name / "x.npy", mmap_mode="r") for name in (first, second))
    twins = np.flatnonzero(np.isin(codes[second], shared))
    places = at[np.searchsorted(shared, codes[second][twins])]
    return [(int(i), int(j)) for i, j in zip(places, twins, strict=True) if np.array_equal(a[i], b[j])]


class RunFingerprints:
    """Runs of a series, each the rows of one group from one source, by 32 bytes each.

    Rows that repeat are no copy: a machine that stands still looks like any other. A run that repeats in every
    time and value is one, unless it is constant or too short for a window.
    """

    def __init__(self, channels: int, shortest: int) -> None:
        self._shortest = shortest
        self._row = np.dtype([("time", "<i8"), ("x", "<f4", (channels,))])
        self._seen: dict[bytes, tuple[int, int]] = {}  # digest -> group, split
        self._now: tuple[int, int, int] | None = None  # group, source, split
        self._digest, self._rows, self._changes = hashlib.blake2b(), 0, False
        self._first: np.ndarray | None = None
        self.duplicates: list[tuple[int, int, int, int]] = []  # group, its split, the group it repeats, its split

    def add(self, group: np.ndarray, source: np.ndarray, split: np.ndarray, time: np.ndarray, x: np.ndarray) -> None:
        """The next rows, sorted by group, then source, then time. x: float32 [rows, channels]; the others [rows]."""
        if not len(group):
            return
        borders = np.flatnonzero((np.diff(group) != 0) | (np.diff(source) != 0)) + 1
        for start, end in zip([0, *borders], [*borders, len(group)], strict=True):
            here = (int(group[start]), int(source[start]), int(split[start]))
            if here != self._now:
                self.finish_run()
                self._now, self._first = here, x[start].copy()
            rows = np.empty(end - start, self._row)
            rows["time"], rows["x"] = time[start:end], x[start:end]
            self._digest.update(rows.tobytes())
            self._rows += end - start
            self._changes = self._changes or bool((x[start:end] != self._first).any())

    def finish_run(self) -> None:
        """No more rows of the run come."""
        if self._now is not None and self._changes and self._rows >= self._shortest:
            group, _, split = self._now
            other = self._seen.setdefault(self._digest.digest(), (group, split))
            if other[1] != split:
                self.duplicates.append((group, split, *other))
        self._digest, self._rows, self._changes = hashlib.blake2b(), 0, False
        self._now = None

    def refuse_duplicates(self, names: list[str]) -> None:
        """Raise ContractError where two splits hold an equal run. names: number -> group."""
        self.finish_run()
        if self.duplicates:
            group, split, other, place = self.duplicates[0]
            found = (
                f"{len(self.duplicates)} group(s) are in two splits under two names: "
                f"{names[group]!r} in {SPLITS[split]} is row by row {names[other]!r} in {SPLITS[place]}"
            )
            raise ContractError("data/validated", found, EXPECTED, REMEDY)
