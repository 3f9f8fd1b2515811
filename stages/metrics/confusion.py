"""Precision, recall and F1 from counts of actual and predicted classes: of a network while it is trained and of an
exported file alike.
"""

from __future__ import annotations

import numpy as np


def confusion_matrix(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts [classes, classes], rows are the actual classes."""
    cells = np.bincount(actual * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """precision, recall, f1, support of each class from counts [..., classes, classes] -> each [..., classes].

    0 where a class was never predicted (precision) or never there (recall), as scikit-learn has it.
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
    """precision, recall and f1, macro and weighted by support, from counts [..., classes, classes] -> each [...].

    Macro is over the classes that occur, as actual or as predicted ones.
    """
    scores = per_class(confusion)
    support = scores["support"]
    occurs = (support + confusion.sum(axis=-2)) > 0
    result = {}
    for name in ("precision", "recall", "f1"):
        result[f"{name}_macro"] = _ratio((scores[name] * occurs).sum(axis=-1), occurs.sum(axis=-1))
        result[f"{name}_weighted"] = _ratio((scores[name] * support).sum(axis=-1), support.sum(axis=-1))
    return result


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    out = np.zeros(np.broadcast(above, below).shape)
    np.divide(above, below, out=out, where=below > 0)
    return out
