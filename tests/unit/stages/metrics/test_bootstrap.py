"""Intervals for samples in groups: against a plain loop, against their coverage, and with a caveat for few groups."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from stages.metrics import classification
from stages.metrics.bootstrap import Clusters


def test_the_replicates_are_those_of_drawing_whole_groups() -> None:
    """Each replicate is a sum over as many groups as there are; a group's samples come together or not at all."""
    groups, kinds = np.array(["a"] * 5 + ["b"] * 3 + ["c"] * 2), np.array([0] * 5 + [1] * 3 + [2] * 2)

    (drawn,) = Clusters(groups, 1, 3).totals(kinds, 3)
    times = drawn / [5, 3, 2]

    assert drawn.shape == (2000, 3)
    assert np.array_equal(times, times.round())
    assert set(times.sum(axis=1)) == {3.0}
    assert times.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.05)


def test_values_are_summed_as_often_as_their_group_is_drawn() -> None:
    groups, values = np.array([0, 0, 1, 1]), np.array([0.25, 0.5, 1.0, -3.0])
    clusters = Clusters(groups, 7, 2)

    (sums,) = clusters.totals(np.array([0, 1, 0, 1]), 2, values)
    (times,) = clusters.totals(groups, 2)

    assert sums == pytest.approx((times / 2) @ np.array([[0.25, 0.5], [1.0, -3.0]]))


def of_groups(rng: np.random.Generator, groups: int, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes; a group's samples are right as often as the group is easy: Beta(8, 2), 0.8 on average."""
    member = np.repeat(np.arange(groups), each)
    actual = rng.integers(0, 2, size=groups * each)
    right = rng.uniform(size=groups * each) < rng.beta(8, 2, size=groups)[member]
    return member, actual, np.where(right, actual, 1 - actual)


@pytest.mark.slow
def test_the_intervals_are_those_of_a_plain_loop_over_groups() -> None:
    rng = np.random.default_rng(3)
    member, actual, predicted = of_groups(rng, 12, 40)
    own = [np.flatnonzero(member == k) for k in range(12)]
    loop = []
    for _ in range(3000):
        index = np.concatenate([own[k] for k in rng.integers(12, size=12)])
        loop.append(
            [np.mean(actual[index] == predicted[index]), f1_score(actual[index], predicted[index], average="macro")]
        )

    clusters = Clusters(member, 1, 4)
    accuracy = classification.hit_share(actual == predicted, 0.95, clusters)
    f1 = classification.estimates(actual, predicted, 2, 0.95, 1, clusters)[0]["f1_macro"]

    for result, k in ((accuracy, 0), (f1, 1)):
        expected = np.quantile([row[k] for row in loop], [0.025, 0.975])
        assert (result.low, result.high) == pytest.approx(expected, abs=0.012)


def test_of_thirty_groups_the_interval_covers_the_truth_where_that_of_samples_does_not() -> None:
    rng, trials, covered, by_sample = np.random.default_rng(4), 200, 0, 0

    for seed in range(trials):
        member, actual, predicted = of_groups(rng, 30, 40)
        result = classification.hit_share(actual == predicted, 0.95, Clusters(member, seed, 4))
        covered += result.low <= 0.8 <= result.high
        plain = classification.wilson(int((actual == predicted).sum()), len(actual), 0.95)
        by_sample += plain.low <= 0.8 <= plain.high

    assert covered / trials >= 0.9
    assert by_sample / trials < 0.75


def test_groups_without_a_mistake_leave_no_narrower_interval_than_samples() -> None:
    right, clusters = np.ones(60, dtype=bool), Clusters(np.repeat(np.arange(6), 10), 1, 4)

    assert classification.hit_share(right, 0.95, clusters) == classification.wilson(60, 60, 0.95)


def test_the_calibration_error_of_groups_is_less_sure_than_that_of_samples() -> None:
    rng = np.random.default_rng(5)
    member, actual, predicted = of_groups(rng, 12, 100)
    sure = np.full(len(actual), 0.8)

    grouped = classification.calibration_estimate(sure, actual == predicted, 0.95, 1, Clusters(member, 1, 4))
    single = classification.calibration_estimate(sure, actual == predicted, 0.95, 1, Clusters(np.arange(1200), 1, 4))

    assert grouped.value == single.value
    assert grouped.high > single.high + 0.02


def test_a_class_that_few_groups_have_is_judged_where_it_is_drawn() -> None:
    """A third of the replicates lack the class; a recall of 0 there would mean that the file never finds it."""
    groups = np.repeat(np.arange(3), 20)
    actual = np.where(groups == 0, 1, 0)

    _, each = classification.estimates(actual, actual, 2, 0.95, 1, Clusters(groups, 1, 4))

    assert each["recall"][1].low == classification.wilson(20, 20, 0.95).low


@pytest.mark.parametrize(
    ("groups", "unit", "caveat"),
    [
        (np.arange(7), "sample", None),
        (np.repeat(np.arange(10), 2), "group", None),
        (np.repeat(np.arange(9), 2), "group", "9 groups are few"),
        (np.array(["a", "a"]), "group", "all test samples are of one group"),
    ],
)
def test_what_was_drawn_is_said_and_that_few_groups_are_few(groups: np.ndarray, unit: str, caveat: str | None) -> None:
    result = Clusters(groups, 1, 4).describe()

    assert (result["unit"], result["units"]) == (unit, len(np.unique(groups)))
    assert caveat in result["caveat"] if caveat else result["caveat"] is None


def test_many_groups_are_drawn_in_portions_that_fit_in_memory() -> None:
    groups = np.repeat(np.arange(30_000), 2)
    clusters = Clusters(groups, 1, 2)

    sizes = [len(portion) for portion in clusters.totals(groups % 2, 2)]

    assert sum(sizes) == 2000
    assert max(sizes) * len(groups) <= 10_000_000
