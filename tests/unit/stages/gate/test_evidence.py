"""The evidence of the gate: it passes only with every report, complete and on the present files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stages.gate import stage as gate
from stages.report.schemas.evaluation import EvaluationReport
from stages.report.verdict import read_verdict, refusal
from tests.support.stages.built import change_report, edit, report
from tests.support.stages.target import CLASSES

pytestmark = pytest.mark.slow  # each runs the whole gate

PIPELINE = {
    "quality": "quality.json",
    "balance": "balance.json",
    "train": "train/summary.json",
    "compress": "compress.json",
}
DAMAGE: dict[str, str | None] = {
    "missing": None, "empty": "", "cut": '{"splits": {"train"',
    "no JSON": "\x00\x01", "list": "[]", "text": '"all is well"',
    "null": "null", "no field": "{}", "NaN": '{"ratio": NaN}', "infinite": '{"ratio": 1e999}', "deep": "[" * 100_000,
}  # fmt: skip
# Scores of a split without the class 3, which the prepared splits have.
WITHOUT_3: dict[str, Any] = {
    "accuracy": 0.9,
    "f1_macro": None,
    "partial": {"classes": [name for name in CLASSES if name != "3"], "absent": ["3"], "f1_macro": 0.9},
}
REFUSED_AS_NULL = {"target", "model_sha256", "classes", "samples", "by_group", "confusion", "machine"}


def verdict_of(root: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((root / "reports" / "gate.json").read_text())
    return value


def refused(root: Path, message: str) -> list[dict[str, Any]]:
    """Run the gate, which must not pass: the failed checks. The page is drawn, and a bundle that was there stays."""
    bundle = root / "models" / "bundle" / "digits.tar.zst"
    bundle.parent.mkdir()
    bundle.write_bytes(b"an earlier one")

    gate.main()

    _, verdict = read_verdict()
    assert message in str(refusal(verdict))
    page = (root / "reports" / "index.html").read_text()
    assert "The gate did not pass" in page
    assert "Reports that all files depend on" in page
    assert bundle.read_bytes() == b"an earlier one"
    judged = verdict_of(root)
    assert not judged["passed"]
    assert message in "\n".join(check["reason"] for check in judged["checks"])
    return [check for check in judged["checks"] if not check["passed"]]


@pytest.mark.parametrize("name", PIPELINE)
@pytest.mark.parametrize("damage", DAMAGE)
def test_without_a_sound_report_on_the_pipeline_nothing_passes(built: Path, name: str, damage: str) -> None:
    path, content = built / "reports" / PIPELINE[name], DAMAGE[damage]
    path.unlink() if content is None else path.write_text(content)

    failures = refused(built, f"reports/{PIPELINE[name]}: ")

    assert (failures[0]["name"], failures[0]["target"], failures[0]["value"]) == (name, "pipeline", "unsound")


def changed(value: Any, path: str, new: Any) -> Any:
    """`value` with the field at a dotted path replaced, or without it where `new` is None."""
    key, _, remaining = path.partition(".")
    at: Any = int(key) if isinstance(value, list) else key
    if not remaining and new is None:
        return {k: v for k, v in value.items() if k != at}
    inner = changed(value[at], remaining, new) if remaining else new
    return [inner if i == at else v for i, v in enumerate(value)] if isinstance(value, list) else {**value, at: inner}


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("quality", "overall.accuracy.passed", False, "the data contract did not pass: overall, accuracy"),
        ("quality", "overall.validity.value", 0.5, "did not pass: overall, validity is 0.5, and the threshold is 0.99"),
        ("quality", "sources.digits.timeliness.passed", False, "did not pass: digits, timeliness"),
        ("quality", "overall.completeness", None, "overall.completeness: found nothing"),
        ("quality", "overall.accuracy.value", "all", "overall.accuracy.value: found 'all'"),
        ("quality", "sources", {}, "sources: found {}"),
        ("quality", "quarantine.rows", 1, "the sources have 2 rows of 1799 in quarantine, but the total is given as 1"),
        ("quality", "sources.digits.rows", 1800, "in quarantine, but the total is given as 2"),
        ("balance", "splits.test", None, "splits.test: found nothing"),
        ("balance", "splits.test.samples", 359, "splits.test has 359 samples, but its classes have 360"),
        ("balance", "splits.train.classes", {"0": 1167}, "splits.train counts classes that differ"),
        ("balance", "splits.train.samples", 0, "splits.train.samples: found 0"),
        ("balance", "missing.rows_dropped", 7, "stale: 1797 rows met the contract, but 1804 were prepared"),
        ("train", "model_sha256", "0" * 64, "stale: models/trained/model.pt is not the file"),
        ("train", "model_sha256", None, "model_sha256: found nothing"),
        ("train", "test.accuracy", 1.5, "test.accuracy: found 1.5"),
        ("train", "test.accuracy", 0.5, "the trained network's accuracy is"),
        ("train", "test.f1_macro", 0.5, "the trained network's f1_macro is"),
        ("train", "test", WITHOUT_3, "stale: the mean of test is over the classes ['0', '1', '2', '4', "),
        ("train", "validation.f1_macro", None, "validation.f1_macro: found nothing"),
        ("train", "parameters", 87_501, "the trained network's parameters is 87500 here, but 87501"),
        ("train", "size_bytes", 900_000, "the trained network's size_bytes is"),
        ("train", "size_bytes", True, "size_bytes: found True"),
        ("compress", "model_sha256", "0" * 64, "stale: models/compressed/model.pt is not the file"),
        ("compress", "trained_sha256", "0" * 64, "stale: models/trained/model.pt is not the file"),
        ("compress", "steps", [], "steps: found []"),
        ("compress", "steps.0.name", "finetune", "steps.0 is 'finetune', not 'trained'"),
        ("compress", "steps.2.accuracy", 0.5, "but its steps give"),
        ("compress", "ratio", 5.0, "ratio is 5, but its steps give 4"),
        ("compress", "drop", 0.0, "drop is 0, but its steps give 0.005"),
    ],
)  # fmt: skip
def test_reports_that_do_not_fit_together_fail_with_the_reason(
    built: Path, name: str, field: str, value: Any, message: str
) -> None:
    path = built / "reports" / PIPELINE[name]
    path.write_text(json.dumps(changed(json.loads(path.read_text()), field, value)))

    failures = refused(built, message)

    assert {check["target"] for check in failures if check["name"] in PIPELINE} == {"pipeline"}


def test_a_compression_that_was_measured_over_other_classes_than_the_training_fails(built: Path) -> None:
    path = built / "reports/compress.json"
    report = json.loads(path.read_text())
    report["steps"][0] |= {"f1_macro": None, "partial": WITHOUT_3["partial"]}
    path.write_text(json.dumps(report))

    refused(built, "the trained network's f1_macro is over other classes than in train/summary.json")


@pytest.mark.parametrize(("model", "names"), [("trained", {"train", "compress"}), ("compressed", {"compress"})])
@pytest.mark.parametrize("removed", [True, False])
def test_a_network_exchanged_after_it_was_measured_makes_its_reports_stale(
    built: Path, model: str, names: set[str], removed: bool
) -> None:
    path = built / "models" / model / "model.pt"
    path.unlink() if removed else path.write_bytes(b"another network")

    failures = refused(built, f"models/{model}/model.pt")

    assert {check["name"] for check in failures if check["target"] == "pipeline"} == names


def test_a_training_on_the_border_of_its_repetition_passes(built: Path) -> None:
    """Another device may name the class of one sample in some hundred differently."""
    path = built / "reports/train/summary.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(changed(value, "test.accuracy", value["test"]["accuracy"] - 1 / 360)))

    gate.main()

    assert verdict_of(built)["passed"]


def test_a_series_is_not_counted_by_rows(built: Path) -> None:
    """Windows overlap, or leave rows out."""

    def as_series(task: dict[str, Any]) -> None:
        task["data"] |= {"kind": "series", "time": "at", "image": None}

    edit(built, as_series)
    path = built / "reports/balance.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), "missing.rows_dropped", 7)))

    gate.main()

    assert verdict_of(built)["passed"]


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": 0.0, "high": 1.0}


def ms(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accuracy": "0.99"}, "metrics.json: accuracy: found '0.99'"),
        ({"accuracy": {"value": 0.99}}, "metrics.json: accuracy.low: found nothing"),
        ({"size_bytes": 1}, "metrics.json is stale"),
        ({"per_class": 3}, "metrics.json: per_class: found 3"),
        ({"machine": ["a"]}, "metrics.json: machine"),
        ({"machine": None}, "metrics.json: machine: found None"),
        ({"model_sha256": 7}, "metrics.json: model_sha256: found 7"),
        ({"samples": 359}, "metrics.json: samples is 359, but predictions.csv gives 360"),
        ({"samples": None}, "metrics.json: samples is None, but predictions.csv gives 360"),
        ({"confusion": None}, "metrics.json: confusion is None"),
        ({"accuracy": {"value": 7.0, "low": 7.0, "high": 7.0}}, "metrics.json: accuracy.value: found 7.0"),
        ({"accuracy": {"value": 0.9, "low": 0.95, "high": 1.0}}, "metrics.json: accuracy: found {'high'"),
        ({"memory_mb": {"value": -5.0, "low": -5.0, "high": -5.0}}, "metrics.json: memory_mb.value: found -5.0"),
        ({"latency_ms": {"p95": {"value": -3.0, "low": -3.0, "high": -3.0}}}, "latency_ms.p95.value: found -3.0"),
        ({"latency_ms": {"p50": ms(3.0), "p95": ms(2.0)}}, "metrics.json: found {"),
        ({"target": "onnx-int8"}, "metrics.json: the report is for the target 'onnx-int8'"),
        ({"target": None}, "metrics.json: the report is for the target None"),
        ({"classes": [*"1023456789"]}, "metrics.json: classes are ['1', '0', '2'"),
        ({"confusion": [[0] * 10] * 10}, "metrics.json: confusion is [[0, 0,"),
        ({"accuracy": share(0.99)}, "metrics.json: accuracy is 0.99, but predictions.csv gives 0.9"),
        ({"f1_macro": share(0.99)}, "metrics.json: f1_macro is 0.99, but predictions.csv gives 0.9"),
        ({"recall_weighted": share(0.99)}, "metrics.json: recall_weighted is 0.99"),
        ({"calibration_error": share(0.0)}, "metrics.json: calibration_error is 0, but predictions.csv gives 0.0"),
        ({"agreement": share(0.5)}, "metrics.json: agreement is 0.5, but predictions.csv gives 1"),
        ({"by_group": {"anna": {"accuracy": 1.0, "samples": 360}}}, "metrics.json: by_group is {'anna'"),
        ({"prediction_ratios": {"0": 1.0}}, "metrics.json: prediction_ratios is {'0': 1.0}"),
        ({"confidence_bins": {"edges": [0.5], "ratios": [1.0, 0.0]}}, "confidence_bins.ratios is [1.0, 0.0]"),
        (
            {"intervals": {"unit": "group", "units": 4, "caveat": None}},
            "metrics.json: intervals.unit is group, but predictions.csv gives sample",
        ),
    ],
)
def test_a_report_of_another_shape_fails_with_the_field(built: Path, values: dict[str, Any], message: str) -> None:
    change_report(built, "onnx-fp32", **values)

    refused(built, message)


@pytest.mark.parametrize("field", EvaluationReport.model_fields)
def test_a_field_that_is_null_ends_in_a_verdict(built: Path, field: str) -> None:
    """A null is refused, or counts as a number that was not measured; it never ends the gate with a traceback."""
    change_report(built, "onnx-fp32", **{field: None})

    gate.main()

    judged = {check["target"]: check for check in verdict_of(built)["checks"] if check["name"] == "report"}
    assert judged["onnx-int8"]["passed"]
    assert judged["onnx-fp32"]["passed"] == (field not in REFUSED_AS_NULL)


def test_the_support_of_a_class_that_was_written_by_hand_fails(built: Path) -> None:
    per_class = report(built, "onnx-fp32")["per_class"]
    per_class["3"]["support"] = 9999
    change_report(built, "onnx-fp32", per_class=per_class)

    refused(built, "metrics.json: per_class.3.support is 9999, but predictions.csv gives ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (None, None, "predictions.csv: not readable: No such file or directory"),
        (r".*", "", "predictions.csv: its columns are not group, actual"),
        (r"(?<=e\n).*", "", "predictions.csv: it lists no sample"),
        (r"(?<=e\n)[^\n]*\n", "", "samples is 360, but predictions.csv gives 359"),
        (r"(?<=e\ns0,)\d", "12", "predictions.csv: row 2 is ['s0', '12', "),
        (r"(?<=e\ns0,)(\d),(\d),[^,]*", r"\1,\2,nan", "predictions.csv: row 2 is ['s0', "),
        (r"(?<=e\ns0,)(\d),(\d),[^,]*", r"\1,\2", "predictions.csv: row 2 is ['s0', "),
        (r"(?<=e\ns0,)(\d),(\d),[^,]*", r"\1,\2,0.05", "calibration_error is "),
        (r"(?<=e\n)s0", "s1", "by_group is {}, but predictions.csv gives {'s1'"),
        (r"e\n", 'e\n"', "predictions.csv: row 2 is ["),
    ],
)
def test_a_report_counts_only_with_the_predictions_that_it_was_computed_from(
    built: Path, old: str | None, new: str | None, message: str
) -> None:
    path = built / "reports/evaluate/onnx-fp32/predictions.csv"
    if old is None or new is None:
        path.unlink()
    else:
        path.write_text(re.sub(old, new, path.read_text(), count=1, flags=re.DOTALL))

    refused(built, message)


def test_a_report_on_another_test_split_makes_the_count_of_the_splits_stale(built: Path) -> None:
    path = built / "reports/balance.json"
    value = json.loads(path.read_text())
    counts = value["splits"]["test"]["classes"]
    path.write_text(
        json.dumps(changed(value, "splits.test.classes", counts | {"0": counts["0"] - 1, "1": counts["1"] + 1}))
    )

    refused(
        built,
        f"stale: it counts {counts['0'] - 1} test samples of class '0', but the report of onnx-fp32 has {counts['0']}",
    )
