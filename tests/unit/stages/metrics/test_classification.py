"""Metrics against scikit-learn and SciPy, intervals against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn
from sklearn.metrics import precision_recall_fscore_support

from stages.metrics import classification
from stages.metrics.bootstrap import Clusters
from stages.metrics.confusion import averages, confusion_matrix, per_class

labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(labels)
def test_averages_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    actual, predicted = np.array(pairs).T

    confusion = confusion_matrix(actual, predicted, 4)
    present = np.unique(actual)
    result = averages(confusion, np.isin(range(4), present))

    assert confusion.tolist() == sklearn.confusion_matrix(actual, predicted, labels=range(4)).tolist()
    for average in ("macro", "weighted"):
        options = {"labels": present, "average": average, "zero_division": 0}
        expected = precision_recall_fscore_support(actual, predicted, **options)
        for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert result[f"{name}_{average}"] == pytest.approx(value)


@given(labels)
def test_scores_per_class_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    actual, predicted = np.array(pairs).T

    result = per_class(confusion_matrix(actual, predicted, 4))

    *expected, support = precision_recall_fscore_support(actual, predicted, labels=range(4), zero_division=0)
    assert result["support"].tolist() == support.tolist()
    for name, values in zip(("precision", "recall", "f1"), expected, strict=True):
        assert result[name] == pytest.approx(np.where(support > 0, values, np.nan), nan_ok=True)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_is_that_of_scipy(counts: tuple[int, int], confidence: float) -> None:
    hits, samples = counts

    result = classification.wilson(hits, samples, confidence)

    expected = stats.binomtest(hits, samples).proportion_ci(confidence, method="wilson")
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert result.low <= result.value <= result.high


@given(st.integers(1, 2000), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_binomial_quantile_is_that_of_scipy(count: int, share: float, probability: float) -> None:
    result = classification.binomial_quantile(probability, count, share)

    # Either the same, or the probability is met to the last bits one step apart.
    expected = int(stats.binom.ppf(probability, count, share))
    assert abs(result - expected) <= 1
    assert stats.binom.cdf(result, count, share) >= probability - 1e-9
    assert result == 0 or stats.binom.cdf(result - 1, count, share) <= probability + 1e-9


@pytest.mark.parametrize(("share", "repeats"), [(0.5, 100), (0.95, 100), (0.99, 500)])
def test_percentile_interval_covers_the_true_quantile_as_often_as_promised(share: float, repeats: int) -> None:
    rng, truth, trials = np.random.default_rng(1), -math.log(1 - share), 2000
    covered = 0

    for values in np.sort(rng.exponential(size=(trials, repeats)), axis=1):
        result = classification.percentile(values, share, 0.95)
        covered += result.low <= truth <= result.high

    assert 0.94 <= covered / trials <= 0.995


def test_percentile_refuses_fewer_values_than_its_interval_needs() -> None:
    needed = classification.values_needed(0.99, 0.95)
    assert needed == 368
    classification.percentile(np.arange(needed, dtype=float), 0.99, 0.95)

    with pytest.raises(ValueError, match="too few"):
        classification.percentile(np.arange(needed - 1, dtype=float), 0.99, 0.95)


def counted(confusion: np.ndarray | list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Actual and predicted classes that these counts come from."""
    cells = np.repeat(np.arange(4), np.ravel(confusion))
    return cells // 2, cells % 2


def alone(samples: int) -> Clusters:
    """Each sample is the only one of its group."""
    return Clusters(np.arange(samples), 1, 4)


def test_f1_interval_covers_the_true_f1_as_often_as_promised() -> None:
    rng, trials = np.random.default_rng(2), 300
    truth = np.array([[40, 10], [5, 45]]) / 100
    expected = float(averages(truth * 1e6)["f1_macro"])
    covered = 0

    for seed in range(trials):
        confusion = rng.multinomial(200, truth.ravel()).reshape(2, 2)
        means, _ = classification.estimates(*counted(confusion), 2, 0.9, seed, alone(200))
        covered += means["f1_macro"].low <= expected <= means["f1_macro"].high

    assert 0.84 <= covered / trials <= 0.95


def test_intervals_repeat_with_the_seed_and_narrow_with_the_confidence() -> None:
    actual, predicted = counted([[40, 10], [5, 45]])
    for clusters in (alone(100), Clusters(np.arange(100) % 12, 1, 4)):
        wide, _ = classification.estimates(actual, predicted, 2, 0.99, 1, clusters)
        narrow, _ = classification.estimates(actual, predicted, 2, 0.8, 1, clusters)
        again, _ = classification.estimates(actual, predicted, 2, 0.8, 1, clusters)

        assert narrow == again
        assert wide["f1_macro"].low < narrow["f1_macro"].low < narrow["f1_macro"].high < wide["f1_macro"].high


def test_nothing_is_known_of_the_recall_of_a_class_without_samples() -> None:
    for clusters in (alone(4), Clusters(np.array([0, 0, 1, 1]), 1, 4)):
        _, each = classification.estimates(*counted([[3, 1], [0, 0]]), 2, 0.95, 1, clusters)

        assert [each[name][1] for name in ("precision", "recall", "f1")] == [None, None, None]


def test_calibration_error_by_hand() -> None:
    """Two bins: with a confidence of 0.65 half are right, with one of 0.95 all."""
    confidences = np.array([0.65, 0.65, 0.95, 0.95])
    correct = np.array([True, False, True, True])

    assert classification.calibration_error(confidences, correct) == pytest.approx(0.5 * 0.15 + 0.5 * 0.05)


def test_calibration_interval_of_a_calibrated_model_reaches_down_to_nothing() -> None:
    rng = np.random.default_rng(3)
    confidences = rng.uniform(0.5, 1.0, size=400)
    correct = rng.uniform(size=400) < confidences

    result = classification.calibration_estimate(confidences, correct, 0.95, 1, alone(len(correct)))

    assert result.low < 0.01 < result.value < result.high
    assert result.value == classification.calibration_error(confidences, correct)


def test_calibration_interval_of_an_overconfident_model_covers_the_truth() -> None:
    rng, truth, trials = np.random.default_rng(4), 0.2, 200
    covered = 0

    for seed in range(trials):
        confidences = np.full(300, 0.9)
        correct = rng.uniform(size=300) < 0.9 - truth
        result = classification.calibration_estimate(confidences, correct, 0.95, seed, alone(300))
        covered += result.low <= truth <= result.high

    assert covered / trials >= 0.92


def test_a_large_test_split_is_resampled_in_seconds() -> None:
    rng = np.random.default_rng(5)
    confidences = rng.uniform(0.1, 1.0, size=200_000)
    correct = rng.uniform(size=200_000) < confidences

    result = classification.calibration_estimate(confidences, correct, 0.95, 1, alone(len(correct)))

    assert result.high < 0.01


def test_accuracy_by_group_only_where_groups_hold_more_than_one_sample() -> None:
    correct = np.array([True, True, False, True])

    result = classification.by_group(np.array(["a", "a", "b", "b"]), correct, 0.95)

    assert {name: (group["accuracy"], group["samples"]) for name, group in result.items()} == {
        "a": (1.0, 2),
        "b": (0.5, 2),
    }
    assert result["a"]["low"] < 1.0
    assert classification.by_group(np.array(["a", "b", "c", "d"]), correct, 0.95) == {}


def test_shares_name_every_class() -> None:
    assert classification.shares(np.array([0, 0, 2]), ["x", "y", "z"]) == {"x": 2 / 3, "y": 0.0, "z": 1 / 3}
