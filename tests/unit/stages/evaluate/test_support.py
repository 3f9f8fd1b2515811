"""The evaluation of a test split without a class: null for every mean over all classes, and the others by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stages.evaluate.recompute import Predictions, disagreement
from stages.evaluate.stage import quality
from stages.report.schemas.evaluation import EvaluationReport

CLASSES = ["idle", "run", "jam"]
# Ten samples of each of two classes; two samples of the first are predicted as the class without samples.
ACTUAL = np.array([0] * 10 + [1] * 10)
PREDICTED = np.array([2, 2] + [0] * 8 + [1] * 10)
MEANS = [f"{name}_{average}" for name in ("precision", "recall", "f1") for average in ("macro", "weighted")]
NAMES = {"classes": ["idle", "run"], "absent": ["jam"]}
LISTED = Predictions(np.array(["m"] * 20), ACTUAL, PREDICTED, np.full(20, np.float32(0.5)).astype(float), PREDICTED)


def report_of() -> dict[str, Any]:
    probabilities = np.full((20, 3), 0.25, np.float32)
    probabilities[np.arange(20), PREDICTED] = 0.5
    return quality(probabilities, ACTUAL, probabilities, LISTED.group, CLASSES, 0.95, 1)


def test_every_mean_over_all_classes_is_null_and_the_report_names_the_classes() -> None:
    report = report_of()

    assert {name: report[name] for name in MEANS} == dict.fromkeys(MEANS)
    assert NAMES.items() <= report["partial"].items()
    # By hand: precision 8/8 and 10/10, recall 8/10 and 10/10, F1 16/18 and 20/20.
    assert report["partial"]["precision_macro"]["value"] == pytest.approx(1.0)
    assert report["partial"]["recall_macro"]["value"] == pytest.approx(0.9)
    assert report["partial"]["f1_macro"]["value"] == pytest.approx((16 / 18 + 1) / 2)
    jam = report["per_class"]["jam"]
    assert jam == {"support": 0} | {
        f"{name}{end}": None for name in ("precision", "recall", "f1") for end in ("", "_interval")
    }


def test_the_recomputed_numbers_agree_with_the_report() -> None:
    assert disagreement(EvaluationReport.model_validate(report_of()), LISTED, CLASSES) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f1_macro": {"value": 0.94, "low": 0.9, "high": 1.0}}, "f1_macro is 0.94, but predictions.csv gives None"),
        ({"partial": None}, "partial is None, but predictions.csv gives"),
    ],
)
def test_a_mean_over_all_classes_that_the_predictions_do_not_give_is_noticed(
    change: dict[str, Any], message: str
) -> None:
    report = EvaluationReport.model_validate(report_of() | change)
    assert disagreement(report, LISTED, CLASSES).startswith(message)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_number_for_the_recall_of_0_of_0_is_noticed(value: float) -> None:
    report = report_of()
    report["per_class"]["jam"]["recall"] = value

    words = disagreement(EvaluationReport.model_validate(report), LISTED, CLASSES)

    assert words == f"per_class.jam.recall is {value:.6g}, but predictions.csv gives None"
