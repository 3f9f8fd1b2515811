"""Windows are inside one run of one group, and their class follows the configured rule."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.prepare.windows import find_segments, window_labels, window_starts

SECOND = 1_000_000


def test_segments_end_at_groups_and_at_gaps() -> None:
    # given two groups of which the second pauses for three seconds
    codes = np.array([0, 0, 0, 1, 1, 1, 1])
    times = np.array([0, 1, 2, 3, 4, 7, 8]) * SECOND
    # when, then
    assert find_segments(codes, times, 2 * SECOND).tolist() == [0, 3, 5, 7]
    assert find_segments(codes, times, 3 * SECOND).tolist() == [0, 3, 7]


def test_no_rows_have_no_windows() -> None:
    borders = find_segments(np.zeros(0, int), np.zeros(0, int), SECOND)
    assert window_starts(borders, 4, 2).tolist() == []


def test_windows_overlap_within_a_segment_and_leave_short_ones_out() -> None:
    assert window_starts(np.array([0, 9, 11, 15]), length=4, stride=2).tolist() == [0, 2, 4, 11]


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    length=st.integers(1, 12),
    stride=st.integers(1, 15),
)
def test_every_window_occurs_once_and_is_inside_one_segment(lengths: list[int], length: int, stride: int) -> None:
    # given
    borders = np.concatenate([[0], np.cumsum(lengths)])
    # when
    starts = window_starts(borders, length, stride)
    # then
    slow = [s for a, b in itertools.pairwise(borders) for s in range(a, b - length + 1, stride)]
    assert starts.tolist() == slow


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("last", [0, 2, 0, 1]), ("majority", [0, 0, 0, 1]), ("any", [0, 2, 2, 1])],
)
def test_the_class_of_a_window(rule: str, expected: list[int]) -> None:
    # given windows of three rows: all normal; the last of class 2; one in the middle; two of class 1
    labels = np.array([0, 0, 0, 0, 0, 2, 0, 2, 0, 2, 1, 1], dtype=np.int16)
    # when, then
    assert window_labels(labels, np.array([0, 3, 6, 9]), 3, 3, rule).tolist() == expected  # type: ignore[arg-type]


def test_of_equally_frequent_classes_the_first_is_used() -> None:
    labels = np.array([2, 1, 2, 1])
    assert window_labels(labels, np.array([0]), 4, 3, "majority").tolist() == [1]
    assert window_labels(labels, np.array([0]), 4, 3, "any").tolist() == [1]
