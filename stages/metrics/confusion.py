"""Compute confusion matrices, and precision, recall and F1 from them, for PyTorch networks and for exported files.

The support of a class is its number of samples. Without a sample, nothing can be measured about a class: its scores are
undefined, and so is every mean over classes that include it. Undefined numbers are NaN in arrays and null in reports.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MEANS = ("precision_macro", "precision_weighted", "recall_macro", "recall_weighted", "f1_macro", "f1_weighted")


def confusion_matrix(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the confusion matrix [classes, classes]: rows are actual classes, columns are predicted classes.

    Args:
        actual: Index of each sample's actual class [N].
        predicted: Index of each sample's predicted class [N].
        classes: Number of classes.
    """
    cells = np.bincount(actual * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def supported(confusion: np.ndarray) -> np.ndarray:
    """Return whether each class has a sample: bool [..., classes] for confusion matrices [..., classes, classes]."""
    present: np.ndarray = confusion.sum(axis=-1) > 0
    return present


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return the precision, recall, f1 and support of each class, by the name of the score.

    Each score has the shape [..., classes] for confusion matrices [..., classes, classes]. The scores of a class
    without a sample are NaN: its recall is 0 of 0, and its precision could only be 0. As in scikit-learn, the precision
    of a class that has samples but was never predicted is 0.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    support, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    scores = {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
    }
    return {**{name: np.where(support > 0, values, np.nan) for name, values in scores.items()}, "support": support}


def averages(confusion: np.ndarray, over: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return the macro averages and support-weighted averages of precision, recall and f1, by the names in `MEANS`.

    Each average has the shape [...] for confusion matrices [..., classes, classes]. An average is NaN for a matrix in
    which one of the classes that it is over has no sample.

    Args:
        confusion: The confusion matrices.
        over: Whether the averages are over each class: bool [classes]. By default, they are over all classes.
    """
    chosen = np.ones(confusion.shape[-1], dtype=bool) if over is None else over
    scores = per_class(confusion)
    support = scores["support"][..., chosen]
    result = {}
    for name in ("precision", "recall", "f1"):
        values = scores[name][..., chosen]
        result[f"{name}_macro"] = values.sum(axis=-1) / chosen.sum()
        result[f"{name}_weighted"] = (values * support).sum(axis=-1) / np.maximum(support.sum(axis=-1), 1)
    return result


def defined(value: float | np.floating) -> float | None:
    """Return a score as a number for a report: null (None) if the score is undefined (NaN)."""
    return None if np.isnan(value) else float(value)


def name_classes(classes: Sequence[str], absent: Sequence[str]) -> str:
    """Return the text that says which classes a mean is over, such as "2 of 3 classes: idle, run".

    `classes` are the classes that the mean is over, and `absent` are the classes without a sample.
    """
    return f"{len(classes)} of {len(classes) + len(absent)} classes: {', '.join(classes)}"


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator for each element, or 0 where the denominator is 0."""
    out = np.zeros(np.broadcast(numerator, denominator).shape)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
