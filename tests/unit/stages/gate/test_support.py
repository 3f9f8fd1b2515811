"""A class without a sample fails the gate, unless `gate.support: null` accepts it: then each mean names its classes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from stages.gate.evidence import Evidence, Record
from stages.gate.stage import judge, table_of_metrics
from stages.report.verdict import Verdict
from tests.support.paths import REPOSITORY
from tests.unit.stages.gate.test_gate import BALANCE, DIGEST, REPORT, SOUND, TRAINED, failed, gate_of

NAMES = {"classes": ["idle", "run"], "absent": ["jam"]}
MEANS = ("precision_macro", "recall_macro", "f1_macro", "precision_weighted", "recall_weighted", "f1_weighted")
GOOD = {"value": 0.96, "low": 0.94, "high": 0.98}
WITHOUT_JAM = REPORT | dict.fromkeys(MEANS) | {"partial": NAMES | dict.fromkeys(MEANS, GOOD)}
SPLIT = {"accuracy": 0.98, "f1_macro": None, "partial": NAMES | {"f1_macro": 0.98}}
TRAINED_WITHOUT_JAM = {
    "model_sha256": DIGEST, "network": "cnn", "parameters": 1, "size_bytes": 600_000, "best_epoch": 0, "epochs": 1,
    "train": {"accuracy": 1.0, "f1_macro": 1.0}, "validation": SPLIT, "test": SPLIT,
}  # fmt: skip
MEANS_JUDGED = {"metrics": {"f1_macro": 0.95, "recall_macro": 0.9}, "retention": {"f1_macro": 0.97}}


def counted(**jam: int) -> dict[str, Record]:
    """Return reports in which the class `jam` has this number of samples in these splits."""
    splits = json.loads(json.dumps(BALANCE["splits"]))
    for split, count in jam.items():
        splits[split]["classes"]["jam"] = count
    trained = TRAINED_WITHOUT_JAM if jam.get("test") == 0 else TRAINED
    return SOUND | {"balance": Record(BALANCE | {"splits": splits}, ""), "train": Record(trained, "")}


def verdict_of(support: int | None, report: dict[str, Any], records: dict[str, Record]) -> Verdict:
    gate = gate_of(support=support, **MEANS_JUDGED)
    return judge(gate, {"onnx-int8": Evidence(report, DIGEST, DIGEST, "")}, records)


COMPLETE = REPORT | {"recall_macro": GOOD}


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(("count", "words"), [(0, "no sample"), (2, "2 sample")])
def test_too_few_samples_of_a_class_fail_the_gate_and_name_class_and_split(split: str, count: int, words: str) -> None:
    verdict = verdict_of(3, COMPLETE, SOUND | {"balance": counted(**{split: count})["balance"]})

    assert not verdict.passed
    (check,) = verdict.failures()
    assert (check.name, check.target, check.value, check.threshold) == (f"support.{split}", "pipeline", count, 3)
    for word in (f"in the {split} split", f"class 'jam' has {words}", "at least 3", "gate.support: null"):
        assert word in check.reason


def test_enough_samples_of_every_class_pass() -> None:
    verdict = verdict_of(3, COMPLETE, SOUND)
    assert verdict.passed, verdict.failures()
    assert [check.value for check in verdict.checks if check.name.startswith("support.")] == [3, 3]


def test_the_training_split_is_not_judged_because_prepare_refuses_it() -> None:
    assert verdict_of(3, COMPLETE, counted(train=1)).passed


def test_an_undefined_mean_passes_no_threshold_and_the_reason_names_the_class() -> None:
    verdict = verdict_of(3, WITHOUT_JAM, counted(test=0))

    means = {"f1_macro", "recall_macro", "retention.f1_macro"}
    assert failed(verdict) == means | {"support.test"}
    for check in verdict.failures():
        assert "jam" in check.reason
        assert check.name not in means or check.value is None


@pytest.mark.parametrize("least", [0.95, 0.0])
def test_an_undefined_mean_is_not_0(least: float) -> None:
    gate = gate_of(support=3, metrics={"f1_macro": least}, retention={})
    verdict = judge(gate, {"onnx-int8": Evidence(WITHOUT_JAM, DIGEST, DIGEST, "")}, counted(test=0))
    assert "f1_macro" in failed(verdict)


def test_null_accepts_the_means_over_the_other_classes_and_says_over_which() -> None:
    verdict = verdict_of(None, WITHOUT_JAM, counted(test=0, validation=0))

    assert verdict.passed, verdict.failures()
    over = "over 2 of 3 classes: idle, run"
    judged = {check.name: (check.value, check.note) for check in verdict.checks if check.note}
    assert judged == {
        "f1_macro": (0.96, over),
        "recall_macro": (0.96, over),
        "retention.f1_macro": (pytest.approx(0.96 / 0.98), over),
    }
    test, validation = verdict.notes
    assert "no test sample is of class jam" in test and over in test
    assert "no validation sample is of class jam" in validation and over in validation


def test_null_still_judges_the_means_over_the_other_classes() -> None:
    low = {"value": 0.5, "low": 0.4, "high": 0.6}
    poor = WITHOUT_JAM | {"partial": WITHOUT_JAM["partial"] | {"f1_macro": low}}

    verdict = verdict_of(None, poor, counted(test=0))

    assert failed(verdict) == {"f1_macro", "retention.f1_macro"}


def test_null_accepts_no_mean_that_is_missing_for_another_reason() -> None:
    assert failed(verdict_of(None, REPORT | {"f1_macro": None, "recall_macro": GOOD}, SOUND)) == {
        "f1_macro",
        "retention.f1_macro",
    }


@pytest.mark.parametrize(("support", "f1_macro"), [(1, None), (None, 0.96)])
def test_the_table_of_metrics_names_the_classes_and_has_null_instead_of_a_number(
    support: int | None, f1_macro: float | None
) -> None:
    evidence, records = {"onnx-int8": Evidence(WITHOUT_JAM, DIGEST, DIGEST, "")}, counted(test=0)
    gate = gate_of(support=support)

    table = table_of_metrics(gate, judge(gate, evidence, records), evidence, records["train"])

    row = json.loads(json.dumps(table, allow_nan=False))["onnx-int8"]
    assert row["f1_macro"] == f1_macro
    assert row["classes_with_samples"] == "2 of 3 classes: idle, run"


@pytest.mark.parametrize("task", ["digits", "pump", "spoken-digits"])
def test_the_shipped_tasks_need_a_sample_of_every_class(task: str) -> None:
    params = yaml.safe_load((REPOSITORY / "tasks" / task / "params.yaml").read_text(encoding="utf-8"))
    assert params["gate"].get("support") == 1
