"""Detect samples that are in two splits, because a model must not be tested on samples that it was trained on.

While the splits are written, only a fingerprint of a few bytes is stored for each sample or run of rows.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from stages.core.dataset import SPLITS
from stages.core.errors import ContractError

EXPECTED = "no sample in two splits, because a metric on training samples is not meaningful"
REMEDY = "remove one of the two duplicates from its source, or give both the same group (data.group)"


class SampleFingerprints:
    """A fingerprint of 8 bytes for each sample of all splits, to find samples that are in two splits."""

    def __init__(self) -> None:
        self._codes: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.uint64)] for name in SPLITS}

    def add(self, split: str, x: np.ndarray) -> None:
        """Add fingerprints of the samples `x` [N, ...] to a split, in the order in which the samples are written."""
        digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in x)
        self._codes[split].append(np.frombuffer(digests, np.uint64))

    def refuse_duplicates(self, prepared: Path, groups: dict[str, np.ndarray], names: list[str]) -> None:
        """Raise ContractError if two splits contain the same sample.

        Samples with equal fingerprints are read and compared, because different samples can have the same fingerprint.

        Args:
            prepared: Folder of the prepared data.
            groups: For each split, the group number of each sample, int [N].
            names: Name of each group, by its number.
        """
        codes = {name: np.concatenate(parts) for name, parts in self._codes.items()}
        problems: list[str] = []
        for i, first in enumerate(SPLITS):
            for second in SPLITS[i + 1 :]:
                equal = _equal_samples(prepared, first, second, codes)
                if equal:
                    a, b = equal[0]
                    problems.append(
                        f"{len(equal)} sample(s) of {second} are also in {first}: a sample of group "
                        f"{names[groups[second][b]]!r} is the same as a sample of group {names[groups[first][a]]!r}"
                    )
        if problems:
            raise ContractError("data/validated", "; ".join(problems), EXPECTED, REMEDY)


def _equal_samples(prepared: Path, first: str, second: str, codes: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """Find the samples that are in both splits, and return each sample's index in `first` and its index in `second`.

    Args:
        prepared: Folder of the prepared data.
        first: Name of a split.
        second: Name of another split.
        codes: Fingerprints of the samples, by split.
    """
    shared, at, _ = np.intersect1d(codes[first], codes[second], return_indices=True)
    if not len(shared):
        return []
    a, b = (np.load(prepared / name / "x.npy", mmap_mode="r") for name in (first, second))
    candidates = np.flatnonzero(np.isin(codes[second], shared))
    places = at[np.searchsorted(shared, codes[second][candidates])]
    return [(int(i), int(j)) for i, j in zip(places, candidates, strict=True) if np.array_equal(a[i], b[j])]


class RunFingerprints:
    """Fingerprints of the runs of a series; a run consists of all rows of one group from one source.

    Single equal rows are not duplicates, because all machines look alike while they are switched off. Runs with equal
    times and values are duplicates, unless they are constant or too short for a window.
    """

    def __init__(self, channels: int, shortest: int) -> None:
        """Start with no fingerprints. Rows have `channels` values; runs of fewer than `shortest` rows are ignored."""
        self._shortest = shortest
        self._row = np.dtype([("time", "<i8"), ("x", "<f4", (channels,))])
        self._first_run: dict[bytes, tuple[int, int]] = {}  # digest -> group, split
        self._run: tuple[int, int, int] | None = None  # group, source, split
        self._digest, self._rows, self._changes = hashlib.blake2b(), 0, False
        self._first: np.ndarray | None = None
        self.duplicates: list[tuple[int, int, int, int]] = []  # group, its split, group with an equal run, its split

    def add(self, group: np.ndarray, source: np.ndarray, split: np.ndarray, time: np.ndarray, x: np.ndarray) -> None:
        """Add the next rows, which are sorted by group, then source, then time.

        Args:
            group: Number of the group, int [rows].
            source: Number of the source, int [rows].
            split: Number of the split, int [rows].
            time: Time in microseconds, int64 [rows].
            x: Values, float32 [rows, channels].
        """
        if not len(group):
            return
        borders = np.flatnonzero((np.diff(group) != 0) | (np.diff(source) != 0)) + 1
        for start, end in zip([0, *borders], [*borders, len(group)], strict=True):
            run = (int(group[start]), int(source[start]), int(split[start]))
            if run != self._run:
                self.finish_run()
                self._run, self._first = run, x[start].copy()
            rows = np.empty(end - start, self._row)
            rows["time"], rows["x"] = time[start:end], x[start:end]
            self._digest.update(rows.tobytes())
            self._rows += end - start
            self._changes = self._changes or bool((x[start:end] != self._first).any())

    def finish_run(self) -> None:
        """Store the fingerprint of the run whose last row was just added, and record the run if it is a duplicate."""
        if self._run is not None and self._changes and self._rows >= self._shortest:
            group, _, split = self._run
            other = self._first_run.setdefault(self._digest.digest(), (group, split))
            if other[1] != split:
                self.duplicates.append((group, split, *other))
        self._digest, self._rows, self._changes = hashlib.blake2b(), 0, False
        self._run = None

    def refuse_duplicates(self, names: list[str]) -> None:
        """Raise ContractError if two splits contain the same run. `names` has the name of each group, by its number."""
        self.finish_run()
        if self.duplicates:
            group, split, other, other_split = self.duplicates[0]
            problem = (
                f"{len(self.duplicates)} group(s) are in two splits under two names: "
                f"{names[group]!r} in {SPLITS[split]} has the same rows as {names[other]!r} in {SPLITS[other_split]}"
            )
            raise ContractError("data/validated", problem, EXPECTED, REMEDY)
