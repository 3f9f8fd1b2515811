"""Windows over the rows of a series: where each starts and which class it has."""

from __future__ import annotations

from typing import Literal

import numpy as np


def find_segments(codes: np.ndarray, times: np.ndarray, max_gap_us: int) -> np.ndarray:
    """Borders of runs of rows of one group without a gap. Rows are sorted by group, then time.

    codes: int [R], which group; times: int64 [R], microseconds. Returns int64 [S + 1]: segment i is the rows from
    borders[i] up to, not including, borders[i + 1].
    """
    if len(codes) == 0:
        return np.zeros(1, dtype=np.int64)
    breaks = (codes[1:] != codes[:-1]) | (np.diff(times) > max_gap_us)
    return np.concatenate([[0], np.flatnonzero(breaks) + 1, [len(codes)]]).astype(np.int64)


def window_starts(borders: np.ndarray, length: int, stride: int) -> np.ndarray:
    """First rows of all windows of `length` rows that lie within one segment, `stride` rows apart. int64 [N]."""
    counts = np.maximum((np.diff(borders) - length) // stride + 1, 0)
    total = int(counts.sum())
    before = np.cumsum(counts) - counts
    nth = np.arange(total, dtype=np.int64) - np.repeat(before, counts)
    starts: np.ndarray = np.repeat(borders[:-1], counts) + nth * stride
    return starts


def window_labels(
    labels: np.ndarray, starts: np.ndarray, length: int, classes: int, rule: Literal["last", "any", "majority"]
) -> np.ndarray:
    """Class of each window from those of its rows; of equally frequent classes the first. int64 [N].

    last: of its last row. majority: the most frequent. any: the most frequent other than class 0 (the normal
    state) if any row has one, else class 0.
    """
    if rule == "last":
        last: np.ndarray = labels[starts + length - 1].astype(np.int64)
        return last
    best = np.zeros(len(starts), dtype=np.int64)
    most = np.zeros(len(starts), dtype=np.int64)
    for index in range(1 if rule == "any" else 0, classes):
        # One class at a time: a table of all running counts would be rows x classes large.
        running = np.concatenate([[0], np.cumsum(labels == index, dtype=np.int64)])
        found = running[starts + length] - running[starts]
        better = found > most
        best[better], most[better] = index, found[better]
    return best
