"""Compute confusion matrices, and precision, recall and F1 from them, for PyTorch networks and for exported files."""

from __future__ import annotations

import numpy as np


def confusion_matrix(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the confusion matrix [classes, classes]: rows are actual classes, columns are predicted classes.

    Args:
        actual: Index of each sample's actual class [N].
        predicted: Index of each sample's predicted class [N].
        classes: Number of classes.
    """
    cells = np.bincount(actual * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return the precision, recall, f1 and support of each class, by the name of the score.

    Each score has the shape [..., classes] for confusion matrices [..., classes, classes]. As in scikit-learn, the
    precision of a class that was never predicted is 0, and the recall of a class that never occurs is 0.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    support, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
        "support": support,
    }


def averages(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return the macro averages and support-weighted averages of precision, recall and f1, by names like `f1_macro`.

    Each average has the shape [...] for confusion matrices [..., classes, classes]. Macro averages are over the classes
    that occur in the samples or in the predictions.
    """
    scores = per_class(confusion)
    support = scores["support"]
    occurs = (support + confusion.sum(axis=-2)) > 0
    result = {}
    for name in ("precision", "recall", "f1"):
        result[f"{name}_macro"] = _ratio((scores[name] * occurs).sum(axis=-1), occurs.sum(axis=-1))
        result[f"{name}_weighted"] = _ratio((scores[name] * support).sum(axis=-1), support.sum(axis=-1))
    return result


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator for each element, or 0 where the denominator is 0."""
    out = np.zeros(np.broadcast(numerator, denominator).shape)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
