"""The gate: what passes, and that everything doubtful fails."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import ParameterError
from stages.gate.evidence import Evidence, Record
from stages.gate.stage import judge
from stages.params import load
from stages.params.gate import Budget, Gate
from stages.report.verdict import Verdict
from tests.support.stages.built import edit

DIGEST = "a" * 64
ONE = {"value": 1.0, "low": 0.9, "high": 1.0}
REPORT: dict[str, Any] = {
    "accuracy": {"value": 0.97, "low": 0.95, "high": 0.98},
    "f1_macro": {"value": 0.96, "low": 0.94, "high": 0.98},
    "agreement": ONE,
    "calibration_error": {"value": 0.03, "low": 0.02, "high": 0.05},
    "size_bytes": 30_000,
    "latency_ms": {"p95": {"value": 0.1, "low": 0.09, "high": 0.12}},
    "memory_mb": {"value": 40.0, "low": 39.0, "high": 41.0},
}
TRAINED = {"test": {"accuracy": 0.98, "f1_macro": 0.98}, "size_bytes": 600_000}
COUNTS = {"samples": 60, "groups": 60, "classes": {"idle": 20, "run": 37, "jam": 3}}
BALANCE = {"splits": dict.fromkeys(("train", "validation", "test"), COUNTS), "missing": {"rows_dropped": 0}}
SOUND = {name: Record({}, "") for name in ("quality", "compress")}
SOUND |= {"balance": Record(BALANCE, ""), "train": Record(TRAINED, "")}
BUDGET = {"required": True, "size_kb": 40.0, "compression": 10.0, "latency_p95_ms": 5.0, "memory_mb": 200.0}


def gate_of(budgets: dict[str, dict[str, Any]] | None = None, **changed: Any) -> Gate:
    values: dict[str, Any] = {
        "support": 3,
        "metrics": {"accuracy": 0.95, "f1_macro": 0.95},
        "retention": {"accuracy": 0.98},
        "agreement": 0.95,
        "calibration_error": 0.1,
        "targets": budgets or {"onnx-int8": BUDGET},
    }
    return Gate.model_validate(values | changed)


def evidence(fault: str = "", **changed: Any) -> Evidence:
    return Evidence(REPORT | changed, DIGEST, DIGEST, fault)


def failed(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.failures()}


def test_good_numbers_pass_every_check() -> None:
    verdict = judge(gate_of(), {"onnx-int8": evidence()}, SOUND)

    assert verdict.passed, verdict.failures()
    assert {check.name for check in verdict.checks} == {
        "quality", "balance", "train", "compress", "support.validation", "support.test", "report",
        "accuracy", "f1_macro", "retention.accuracy", "agreement", "calibration_error",
        "size_kb", "compression", "latency_p95_ms", "memory_mb",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "budget", "check"),
    [
        ({"metrics": {"accuracy": 0.971}}, {}, "accuracy"),
        ({"metrics": {"precision_weighted": 0.5}}, {}, "precision_weighted"),
        ({"retention": {"accuracy": 0.99}}, {}, "retention.accuracy"),
        ({"retention": {"f1_macro": 0.99}}, {}, "retention.f1_macro"),
        ({"calibration_error": 0.02}, {}, "calibration_error"),
        ({}, {"size_kb": 29.9}, "size_kb"),
        ({}, {"compression": 20.1}, "compression"),
        ({}, {"latency_p95_ms": 0.09}, "latency_p95_ms"),
        ({}, {"memory_mb": 39.9}, "memory_mb"),
    ],
)
def test_every_threshold_can_fail(changed: dict[str, Any], budget: dict[str, Any], check: str) -> None:
    verdict = judge(gate_of({"onnx-int8": BUDGET | budget}, **changed), {"onnx-int8": evidence()}, SOUND)

    assert not verdict.passed
    assert failed(verdict) == {check}
    assert all(one.reason for one in verdict.failures())


def test_agreement_can_fail() -> None:
    low = {"value": 0.94, "low": 0.9, "high": 0.96}
    assert failed(judge(gate_of(), {"onnx-int8": evidence(agreement=low)}, SOUND)) == {"agreement"}


def test_a_value_at_its_threshold_passes() -> None:
    exact = gate_of({"onnx-int8": BUDGET | {"size_kb": 30.0, "compression": 20.0}}, metrics={"accuracy": 0.97})
    assert judge(exact, {"onnx-int8": evidence()}, SOUND).passed


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "0.99", True, [], {"value": math.nan}, {}])
def test_what_is_no_finite_number_fails(value: Any) -> None:
    verdict = judge(gate_of(), {"onnx-int8": evidence(accuracy=value)}, SOUND)

    assert failed(verdict) == {"accuracy", "retention.accuracy"}
    (check, _) = verdict.failures()
    assert check.value is None
    assert "accuracy" in check.reason


def test_a_missing_metric_fails_with_its_name() -> None:
    without_latency = {name: value for name, value in REPORT.items() if name != "latency_ms"}
    verdict = judge(gate_of(), {"onnx-int8": Evidence(without_latency, DIGEST, DIGEST, "")}, SOUND)

    (check,) = verdict.failures()
    assert check.reason == "latency_ms.p95 is missing from its report"


@pytest.mark.parametrize("trained", [{}, {"test": {"accuracy": 0.0}, "size_bytes": 0}, {"test": None}])
def test_without_the_trained_model_there_is_no_retention_and_no_compression(trained: dict[str, Any]) -> None:
    expected = {"retention.accuracy"} if trained.get("size_bytes") == 0 else {"retention.accuracy", "compression"}
    records = SOUND | {"train": Record(trained, "")}
    assert failed(judge(gate_of(), {"onnx-int8": evidence()}, records)) >= expected


def test_numbers_of_another_file_all_fail() -> None:
    verdict = judge(gate_of(), {"onnx-int8": evidence(fault="it is stale")}, SOUND)

    own = [check for check in verdict.checks if check.target == "onnx-int8"]
    assert verdict.failures() == own
    assert {check.reason for check in own} == {"it is stale"}


@pytest.mark.parametrize("name", SOUND)
def test_a_report_on_the_pipeline_that_is_not_sound_fails_the_gate_and_no_target(name: str) -> None:
    verdict = judge(gate_of(retention={}), {"onnx-int8": evidence()}, SOUND | {name: Record(TRAINED, "it is stale")})

    assert not verdict.passed
    (check, *others) = verdict.failures()
    assert (check.name, check.target, check.value, check.reason) == (name, "pipeline", "unsound", "it is stale")
    depending = {"train": ["compression"], "balance": ["support.validation", "support.test"]}
    assert [one.name for one in others] == depending.get(name, [])


def test_numbers_of_a_stale_training_give_no_retention() -> None:
    verdict = judge(gate_of(), {"onnx-int8": evidence()}, SOUND | {"train": Record(TRAINED, "it is stale")})

    assert failed(verdict) == {"train", "retention.accuracy", "compression"}
    assert {check.value for check in verdict.failures()} == {"unsound", None}


def test_nothing_judged_does_not_pass() -> None:
    nothing = {"required": True, "size_kb": None, "compression": None, "latency_p95_ms": None, "memory_mb": None}
    empty = gate_of({"onnx-int8": nothing}, metrics={}, retention={}, agreement=None, calibration_error=None)

    verdict = judge(empty, {"onnx-int8": evidence()}, SOUND)

    assert not verdict.passed
    assert failed(verdict) == {"thresholds"}


@pytest.mark.parametrize(
    ("trained", "messages"), [(0.9, ["(accuracy: onnx-int8 has a retention of 107.78%"]), (0.97, []), (0.9659, [])]
)
def test_a_file_that_is_better_than_its_network_passes_with_a_note(trained: float, messages: list[str]) -> None:
    """By more than a sample on a border may make of it: then training, not compression, is what was measured."""
    better = Record({"test": {"accuracy": trained, "f1_macro": trained}, "size_bytes": 600_000}, "")

    verdict = judge(gate_of(), {"onnx-int8": evidence()}, SOUND | {"train": better})

    assert verdict.passed
    assert len(verdict.notes) == len(messages)
    assert all(words in note for words, note in zip(messages, verdict.notes, strict=True))


def test_what_is_to_be_kept_in_mind_of_the_intervals_is_noted_once() -> None:
    few = evidence(intervals={"unit": "group", "units": 7, "caveat": "7 groups are few"})
    both = gate_of({"onnx-fp32": BUDGET, "onnx-int8": BUDGET})

    assert judge(both, {"onnx-fp32": few, "onnx-int8": few}, SOUND).notes == ["7 groups are few"]


def test_no_target_does_not_pass() -> None:
    assert not judge(gate_of(), {}, SOUND).passed


def test_an_optional_target_that_fails_is_left_out_and_the_gate_passes() -> None:
    tight = BUDGET | {"required": False, "size_kb": 1.0}
    both = gate_of({"onnx-fp32": BUDGET, "onnx-int8": tight})

    verdict = judge(both, {"onnx-fp32": evidence(), "onnx-int8": evidence()}, SOUND)

    assert verdict.passed
    assert not verdict.targets["onnx-int8"].passed
    assert verdict.targets["onnx-int8"].failed == ["size_kb"]


def test_optional_targets_that_all_fail_do_not_pass() -> None:
    tight = BUDGET | {"required": False, "size_kb": 1.0}
    assert not judge(gate_of({"onnx-int8": tight}), {"onnx-int8": evidence()}, SOUND).passed


def test_a_required_target_that_fails_fails_the_gate() -> None:
    both = gate_of({"onnx-fp32": BUDGET, "onnx-int8": BUDGET | {"size_kb": 1.0}})
    assert not judge(both, {"onnx-fp32": evidence(), "onnx-int8": evidence()}, SOUND).passed


def test_budgets_of_a_target_that_is_not_built_judge_nothing() -> None:
    both = gate_of({"onnx-fp32": BUDGET, "onnx-int8": BUDGET})
    verdict = judge(both, {"onnx-int8": evidence()}, SOUND)

    assert verdict.passed
    assert list(verdict.targets) == ["onnx-int8"]


def test_a_built_target_without_budgets_is_an_error() -> None:
    with pytest.raises(ParameterError, match=r"gate\.targets\.tflite-int8"):
        judge(gate_of(), {"onnx-int8": evidence(), "tflite-int8": evidence()}, SOUND)


def test_the_same_numbers_give_the_same_verdict() -> None:
    assert judge(gate_of(), {"onnx-int8": evidence()}, SOUND) == judge(gate_of(), {"onnx-int8": evidence()}, SOUND)


@pytest.mark.parametrize(
    ("block", "values", "messages"),
    [
        ("metrics", {"acuracy": 0.9}, ["acuracy", "accuracy", "f1_macro", "recall_weighted"]),
        ("retention", {"f1": 0.9}, ["gate.retention", "accuracy", "f1_macro"]),
        ("metrics", {"accuracy": math.nan}, ["gate.metrics.accuracy", "finite"]),
        ("calibration_error", "low", ["gate.calibration_error", "'low'"]),
    ],
)
def test_an_unknown_metric_or_a_wrong_value_names_what_is_known(
    workspace: Path, block: str, values: Any, messages: list[str]
) -> None:
    edit(workspace, lambda task: task["gate"].update({block: values}))

    with pytest.raises(ParameterError) as error:
        load()

    for word in messages:
        assert word in str(error.value)


def test_infinite_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Budget.model_validate(BUDGET | {"size_kb": math.inf})
