"""A class without a sample: its scores and every mean over all classes are undefined, never 0 and never left out."""

from __future__ import annotations

import numpy as np
import pytest

from stages.metrics import classification
from stages.metrics.bootstrap import Clusters
from stages.metrics.confusion import averages, per_class

MEANS = [f"{name}_{average}" for name in ("precision", "recall", "f1") for average in ("macro", "weighted")]
# Rows are actual classes. No sample is of the third class, and two samples of the first are predicted as the third.
CONFUSION = np.array([[6, 2, 2], [0, 10, 0], [0, 0, 0]])
# By hand: the classes have precision 6/6 and 10/12, recall 6/10 and 10/10, and F1 12/16 and 20/22.
PRECISION, RECALL, F1 = (1.0, 10 / 12), (0.6, 1.0), (0.75, 20 / 22)


def samples(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the actual and the predicted class of each sample that the matrix counts."""
    cells = np.repeat(np.arange(confusion.size), confusion.ravel())
    return cells // len(confusion), cells % len(confusion)


@pytest.mark.parametrize("predicted_as_absent", [0, 2])
def test_every_mean_over_all_classes_is_undefined_if_a_class_has_no_sample(predicted_as_absent: int) -> None:
    confusion = np.array([[8, 2, predicted_as_absent], [0, 10, 0], [0, 0, 0]])

    means = averages(confusion)

    assert {name: bool(np.isnan(means[name])) for name in MEANS} == dict.fromkeys(MEANS, True)


def test_the_scores_of_a_class_without_a_sample_are_undefined() -> None:
    scores = per_class(CONFUSION)

    assert scores["support"].tolist() == [10, 10, 0]
    for name, (first, second) in {"precision": PRECISION, "recall": RECALL, "f1": F1}.items():
        assert scores[name] == pytest.approx([first, second, np.nan], nan_ok=True)


def test_the_precision_of_a_class_that_has_samples_but_is_never_predicted_is_0() -> None:
    assert per_class(np.array([[3, 0], [2, 0]]))["precision"].tolist() == [0.6, 0.0]
    assert averages(np.array([[3, 0], [2, 0]]))["precision_macro"] == pytest.approx(0.3)


@pytest.mark.parametrize("groups", [np.arange(20), np.arange(20) % 5])
def test_the_estimated_means_are_over_the_classes_that_have_samples(groups: np.ndarray) -> None:
    """Predictions of the absent class are mistakes of the other classes, and no class of their own."""
    means, each = classification.estimates(*samples(CONFUSION), 3, 0.95, 1, Clusters(groups, 1, 9))

    for name, (first, second) in {"precision": PRECISION, "recall": RECALL, "f1": F1}.items():
        for average in ("macro", "weighted"):  # both classes have ten samples
            estimate = means[f"{name}_{average}"]
            assert estimate.value == pytest.approx((first + second) / 2)
            assert 0 <= estimate.low < estimate.value < estimate.high <= 1
        assert [value and pytest.approx(value.value) for value in each[name]] == [first, second, None]


def test_a_replicate_without_a_class_does_not_count_for_the_intervals() -> None:
    """The second class has one sample of 21, so that a third of the replicates have none. Every prediction is right."""
    confusion = np.array([[20, 0], [0, 1]])
    for groups in (np.arange(21), np.minimum(np.arange(21) // 5, 3)):
        means, _ = classification.estimates(*samples(confusion), 2, 0.95, 1, Clusters(groups, 1, 4))
        assert (means["recall_macro"].low, means["recall_macro"].high) == (1.0, 1.0)

    # The only sample of the second class is wrong: without it, the first class alone would have a recall of 1.
    wrong = np.array([[20, 0], [1, 0]])
    means, _ = classification.estimates(*samples(wrong), 2, 0.95, 1, Clusters(np.arange(21), 1, 4))
    assert (means["recall_macro"].low, means["recall_macro"].high) == (0.5, 0.5)


def test_if_no_replicate_has_all_classes_nothing_is_known_of_their_mean() -> None:
    """Twelve classes, each with one group: a replicate of twelve drawn groups has them all once in 18,600 times."""
    labels = np.repeat(np.arange(12), 3)
    means, _ = classification.estimates(labels, labels, 12, 0.95, 3, Clusters(labels, 3, 144))
    assert means["f1_macro"] == classification.Estimate(1.0, 0.0, 1.0)
