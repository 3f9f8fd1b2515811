"""Compute the first row and the class of each window of a series."""

from __future__ import annotations

from typing import Literal

import numpy as np


def find_segments(codes: np.ndarray, times: np.ndarray, max_gap_us: int) -> np.ndarray:
    """Find the segments of a series: consecutive rows with the same code and without a gap in time.

    Args:
        codes: Number that identifies the group and the source of each row, int [R]. Rows are sorted by code, then time.
        times: Time of each row in microseconds, int64 [R].
        max_gap_us: Longest time between two consecutive rows of a segment, in microseconds.

    Returns:
        Borders of S segments, int64 [S + 1]: the rows of segment i are borders[i] up to, but not including,
        borders[i + 1].
    """
    if len(codes) == 0:
        return np.zeros(1, dtype=np.int64)
    breaks = (codes[1:] != codes[:-1]) | (np.diff(times) > max_gap_us)
    return np.concatenate([[0], np.flatnonzero(breaks) + 1, [len(codes)]]).astype(np.int64)


def window_starts(borders: np.ndarray, length: int, stride: int) -> np.ndarray:
    """Return the index of the first row of each window, int64 [N]. Every window is inside one segment.

    Args:
        borders: Borders of the S segments as `find_segments` returns them, int64 [S + 1].
        length: Number of rows of a window.
        stride: Number of rows from the start of one window to the start of the next.
    """
    counts = np.maximum((np.diff(borders) - length) // stride + 1, 0)
    total = int(counts.sum())
    before = np.cumsum(counts) - counts
    nth = np.arange(total, dtype=np.int64) - np.repeat(before, counts)
    starts: np.ndarray = np.repeat(borders[:-1], counts) + nth * stride
    return starts


def window_labels(
    labels: np.ndarray, starts: np.ndarray, length: int, classes: int, rule: Literal["last", "any", "majority"]
) -> np.ndarray:
    """Return the class of each window, int64 [N]. Among equally frequent classes, the lowest index is used.

    Args:
        labels: Class of each row, int [R].
        starts: Index of the first row of each window, int64 [N].
        length: Number of rows of a window.
        classes: Number of classes.
        rule: Which class a window gets. "last": the class of its last row. "majority": its most frequent class. "any":
            its most frequent class other than class 0 (the normal state), or class 0 if all of its rows have class 0.
    """
    if rule == "last":
        last: np.ndarray = labels[starts + length - 1].astype(np.int64)
        return last
    best = np.zeros(len(starts), dtype=np.int64)
    most = np.zeros(len(starts), dtype=np.int64)
    for index in range(1 if rule == "any" else 0, classes):
        # One class at a time, because the running counts of all classes would need rows x classes elements.
        running = np.concatenate([[0], np.cumsum(labels == index, dtype=np.int64)])
        frequency = running[starts + length] - running[starts]
        better = frequency > most
        best[better], most[better] = index, frequency[better]
    return best
