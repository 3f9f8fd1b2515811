"""Compute the numbers of an evaluation report again from the list of predictions, predictions.csv, in the same folder.

If the report is incomplete, belongs to a different run or was edited manually, its numbers differ from the computed
numbers. Latency and memory cannot be computed again, because they depend on the machine. They are checked only against
the report's schema.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.metrics.bootstrap import Clusters
from stages.metrics.classification import by_group, calibration_error, shares
from stages.metrics.confusion import averages, confusion_matrix, defined, per_class, supported
from stages.report.schemas.evaluation import EvaluationReport

COLUMNS = ["group", "actual", "predicted", "confidence", "reference"]


@dataclass(frozen=True)
class Predictions:
    """The contents of predictions.csv: the predictions for N test samples."""

    group: np.ndarray  # name of each sample's group [N]
    actual: np.ndarray  # class indices [N]
    predicted: np.ndarray  # class indices of the exported file [N]
    confidence: np.ndarray  # probability of the predicted class [N]
    reference: np.ndarray  # class indices of the compressed torch model [N]


def read_predictions(path: Path, classes: Sequence[str]) -> Predictions:
    """Read the file predictions.csv that the `evaluate` stage wrote. Raises OSError, ValueError."""
    index = {name: k for k, name in enumerate(classes)}
    with path.open(newline="", encoding="utf-8") as stream:
        rows = csv.reader(stream)
        try:
            if next(rows, None) != COLUMNS:
                raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
            listed = list(rows)
        except csv.Error as error:
            raise ValueError(f"not readable as CSV: {error}") from None
    if not listed:
        raise ValueError("it lists no sample")
    for number, row in enumerate(listed, 2):
        if len(row) != len(COLUMNS) or not {row[1], row[2], row[4]} <= index.keys() or not _is_share(row[3]):
            raise ValueError(
                f"row {number} is {row}; it must have a group, two classes, a probability and a class, "
                f"where the classes are {list(classes)}"
            )
    group, actual, predicted, confidence, reference = zip(*listed, strict=True)

    def indices(names: Sequence[str]) -> np.ndarray:
        return np.array([index[name] for name in names])

    return Predictions(
        np.array(group),
        indices(actual),
        indices(predicted),
        np.array(confidence, dtype=np.float32).astype(np.float64),
        indices(reference),
    )


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def disagreement(report: EvaluationReport, listed: Predictions, classes: Sequence[str]) -> str:
    """Describe the first number in a report that differs from the number computed from the list of predictions.

    Return "" if all numbers agree. A metric that is missing from the report is not described, because the gate's check
    of this metric fails anyway.

    Args:
        report: The evaluation report.
        listed: The predictions of the same evaluation.
        classes: Names of the classes, in the order of their indices.
    """
    for field, reported, computed in _compared(report, listed, list(classes)):
        if difference := _difference(field, reported, computed):
            return difference
    return ""


def _difference(field: str, reported: Any, computed: Any) -> str:
    if isinstance(reported, dict) and isinstance(computed, dict) and reported.keys() == computed.keys():
        parts = (_difference(f"{field}.{key}", reported[key], computed[key]) for key in computed)
        return next(filter(None, parts), "")
    if _equal(reported, computed):
        return ""
    return f"{field} is {_short(reported)}, but predictions.csv gives {_short(computed)}"


def _compared(report: EvaluationReport, listed: Predictions, classes: list[str]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name of each field, its value in the report, and the value computed from the list of predictions."""
    correct, samples = listed.actual == listed.predicted, len(listed.actual)
    confusion = confusion_matrix(listed.actual, listed.predicted, len(classes))
    yield "samples", report.samples, samples
    yield "confusion", report.confusion, confusion.tolist()
    means = {
        "accuracy": np.mean(correct),
        **averages(confusion),
        "agreement": np.mean(listed.predicted == listed.reference),
        "calibration_error": calibration_error(listed.confidence, correct),
    }
    for name, value in means.items():
        if (estimate := getattr(report, name)) is not None:
            yield name, estimate.value, defined(value)
    yield "partial", report.partial and report.partial.values(), _partial_means(confusion, classes)
    if report.per_class is not None:
        scores = per_class(confusion)
        own = {name: {field: defined(scores[field][k]) for field in scores} for k, name in enumerate(classes)}
        yield "per_class", {name: score.model_dump() for name, score in report.per_class.items()}, own
    if report.prediction_ratios is not None:
        yield "prediction_ratios", report.prediction_ratios, shares(listed.predicted, classes)
    if report.confidence_bins is not None:
        edges = report.confidence_bins.edges
        counts = np.bincount(np.digitize(listed.confidence, edges), minlength=len(edges) + 1)
        yield "confidence_bins.ratios", report.confidence_bins.ratios, (counts / samples).tolist()
    groups = by_group(listed.group, correct, 0.95)
    computed = {name: {"accuracy": own["accuracy"], "samples": own["samples"]} for name, own in groups.items()}
    yield "by_group", {name: own.model_dump() for name, own in report.by_group.items()}, computed
    if report.intervals is not None:
        yield "intervals", report.intervals.model_dump(), Clusters(listed.group, 0, 1).describe()


def _partial_means(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the means over the classes that have a sample, or None if every class has one."""
    over = supported(confusion)
    if over.all():
        return None
    present, absent = ([classes[int(k)] for k in np.flatnonzero(chosen)] for chosen in (over, ~over))
    means = {name: float(value) for name, value in averages(confusion, over).items()}
    return {"classes": present, "absent": absent, **means}


def _equal(reported: Any, computed: Any) -> bool:
    if isinstance(computed, list):
        return isinstance(reported, list) and len(reported) == len(computed) and all(map(_equal, reported, computed))
    if isinstance(computed, float):
        return isinstance(reported, int | float) and math.isclose(reported, computed, abs_tol=1e-9)
    return bool(reported == computed)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
