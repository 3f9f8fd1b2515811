"""Judge the reports against the thresholds, and draw the page.

A gate reads nothing but reports and parameters: the same numbers give the same verdict, on any branch.
What is missing, not a number or measured on another file fails.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.errors import GateError, ParameterError, run
from stages.files import read_json, sha256, write_json
from stages.params import load
from stages.params.deliver import Budget, Gate

EXPORTED = Path("models/exported")
REPORTS = Path("reports")

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, threshold: value >= threshold,
    "<=": lambda value, threshold: value <= threshold,
}


@dataclass(frozen=True)
class Check:
    """One comparison. `value` is None where there is no number; `reason` says why a check failed."""

    name: str
    target: str
    value: float | str | None
    operator: str
    threshold: float | str
    passed: bool
    reason: str


@dataclass(frozen=True)
class Evidence:
    """What is known of one exported file: its report, its digest, and why the report cannot be trusted ("": it can)."""

    report: Mapping[str, Any]
    sha256: str | None
    measured_sha256: str | None
    fault: str


@dataclass(frozen=True)
class TargetVerdict:
    passed: bool
    required: bool
    sha256: str | None
    failed: list[str]


@dataclass(frozen=True)
class Verdict:
    passed: bool
    checks: list[Check]
    targets: dict[str, TargetVerdict]

    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


def judge(gate: Gate, evidence: Mapping[str, Evidence], trained: Mapping[str, Any]) -> Verdict:
    """The verdict on every built target.

    `trained` is the report of the trained float model: "test" holds its metrics, "size_bytes" its size.
    All required targets must pass, and one target at least. Budgets of a target that `targets` does not build judge
    nothing. Raises ParameterError for a target without budgets.
    """
    unjudged = sorted(set(evidence) - set(gate.targets))
    if unjudged:
        raise ParameterError(
            f"gate.targets.{unjudged[0]}",
            "found nothing",
            "budgets for every target that is built",
            "write its budgets, or remove it from `targets` in params.yaml",
        )
    checks: list[Check] = []
    verdicts: dict[str, TargetVerdict] = {}
    for name, known in evidence.items():
        budget = gate.targets[name]  # type: ignore[index]
        own = _judge_target(name, gate, budget, known, trained)
        failed = [check.name for check in own if not check.passed]
        checks += own
        verdicts[name] = TargetVerdict(not failed, budget.required, known.sha256, failed)
    passed = any(v.passed for v in verdicts.values()) and all(v.passed for v in verdicts.values() if v.required)
    return Verdict(passed, checks, verdicts)


def _judge_target(
    target: str, gate: Gate, budget: Budget, evidence: Evidence, trained: Mapping[str, Any]
) -> list[Check]:
    report, fault = evidence.report, evidence.fault
    checks = [
        Check(
            "report", target, evidence.measured_sha256, "==", evidence.sha256 or "the file's digest", not fault, fault
        )
    ]

    def add(name: str, number: tuple[float | None, str], operator: str, threshold: float | None) -> None:
        if threshold is not None:
            checks.append(_check(name, target, number, operator, threshold, fault))

    for metric, least in gate.metrics.items():
        add(metric, _number(report, metric), ">=", least)
    for metric, least in gate.retention.items():
        before = _number(trained, f"test.{metric}", "reports/train/summary.json")
        add(f"retention.{metric}", _ratio(_number(report, metric), before), ">=", least)
    add("agreement", _number(report, "agreement"), ">=", gate.agreement)
    add("calibration_error", _number(report, "calibration_error"), "<=", gate.calibration_error)
    size = _number(report, "size_bytes")
    add("size_kb", _ratio(size, (1000.0, "")), "<=", budget.size_kb)
    before = _number(trained, "size_bytes", "reports/train/summary.json")
    add("compression", _ratio(before, size), ">=", budget.compression)
    add("latency_p95_ms", _number(report, "latency_ms.p95"), "<=", budget.latency_p95_ms)
    add("memory_mb", _number(report, "memory_mb"), "<=", budget.memory_mb)

    if len(checks) == 1:
        reason = "nothing is judged: every threshold of this target is null"
        checks.append(Check("thresholds", target, 0.0, ">=", 1.0, False, reason))
    return checks


def _check(
    name: str, target: str, number: tuple[float | None, str], operator: str, threshold: float, fault: str
) -> Check:
    value, missing = number
    if fault or value is None:
        return Check(name, target, value, operator, threshold, False, fault or missing)
    passed = OPERATORS[operator](value, threshold)
    reason = "" if passed else f"{value:.6g} is {'below' if operator == '>=' else 'above'} {threshold:.6g}"
    return Check(name, target, value, operator, threshold, passed, reason)


def _number(report: Mapping[str, Any], path: str, where: str = "its report") -> tuple[float | None, str]:
    """The finite number (or estimate's value) at a dotted path, or None and why there is none."""
    found: Any = report
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None, f"{path} is missing from {where}"
        found = found[part]
    if isinstance(found, Mapping):
        found = found.get("value")
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None, f"{path} in {where} is {json.dumps(found)}, not a number"
    if not math.isfinite(found):
        return None, f"{path} in {where} is {found}"
    return float(found), ""


def _ratio(above: tuple[float | None, str], below: tuple[float | None, str]) -> tuple[float | None, str]:
    if above[0] is None or below[0] is None:
        return None, above[1] or below[1]
    if below[0] <= 0:
        return None, f"a ratio to {below[0]:g} says nothing"
    return above[0] / below[0], ""


def read_evidence(target: str, exported: Path = EXPORTED, reports: Path = REPORTS) -> Evidence:
    """The target's report beside the digest of the file that lies there now."""
    report_path, export_path = reports / "evaluate" / target / "metrics.json", exported / target / "export.json"
    report, fault = _read(report_path)
    export, export_fault = _read(export_path)
    path = export_path.parent / str(export.get("file"))
    measured = report.get("model_sha256") if isinstance(report.get("model_sha256"), str) else None
    if export_fault:
        return Evidence(report, None, measured, export_fault)
    if not path.is_file():
        return Evidence(report, None, measured, f"{path} is missing")
    digest = sha256(path)
    if not fault and export.get("sha256") != digest:
        fault = f"{export_path} is stale: it describes another file"
    if not fault and measured != digest:
        fault = f"{report_path} is stale: it was measured on another file"
    return Evidence(report, digest, measured, fault)


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """A report that is not there or not JSON is a failed check, with its reason, not an end of the run."""
    try:
        value = read_json(path)
    except FileNotFoundError:
        return {}, f"{path} is missing"
    except ValueError as error:
        return {}, f"{path} is not readable as JSON: {error}"
    return (value, "") if isinstance(value, dict) else ({}, f"{path} holds no JSON object")


def table_of_metrics(
    verdict: Verdict, evidence: Mapping[str, Evidence], trained: Mapping[str, Any]
) -> dict[str, dict[str, float | bool]]:
    """One flat row per target for `dvc metrics show`; a number that is missing has no entry."""
    rows: dict[str, dict[str, float | bool]] = {}
    for target, known in evidence.items():
        accuracy = _number(known.report, "accuracy")
        numbers = {
            "accuracy": accuracy,
            "f1_macro": _number(known.report, "f1_macro"),
            "agreement": _number(known.report, "agreement"),
            "retention": _ratio(accuracy, _number(trained, "test.accuracy")),
            "calibration_error": _number(known.report, "calibration_error"),
            "size_kb": _ratio(_number(known.report, "size_bytes"), (1000.0, "")),
            "latency_p50_ms": _number(known.report, "latency_ms.p50"),
            "latency_p95_ms": _number(known.report, "latency_ms.p95"),
            "memory_mb": _number(known.report, "memory_mb"),
        }
        rows[target] = {name: value for name, (value, _) in numbers.items() if value is not None}
        rows[target]["passed"] = verdict.targets[target].passed
    return rows


def as_json(name: str, verdict: Verdict) -> dict[str, Any]:
    """What reports/gate.json holds."""
    return {
        "name": name,
        "passed": verdict.passed,
        "checks": [asdict(check) for check in verdict.checks],
        "targets": {target: asdict(own) for target, own in verdict.targets.items()},
    }


def refusal(failures: Iterable[Check]) -> GateError:
    """The error that a failed gate ends with."""
    lines = [f"  {check.target} {check.name}: {check.reason}" for check in failures]
    return GateError(
        "reports/gate.json",
        "the gate did not pass; no bundle is made\n" + "\n".join(lines),
        remedy="look at reports/index.html; better the model, or change the thresholds under `gate` with a reason",
    )


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.gate", description=__doc__).parse_args()
    from stages.report.page import render, write_page
    from stages.report.terminal import print_gate

    params = load()
    trained, _ = _read(REPORTS / "train" / "summary.json")
    evidence: dict[str, Evidence] = {target: read_evidence(target) for target in params.targets}
    verdict = judge(params.gate, evidence, trained)
    judged = as_json(params.name, verdict)
    write_json(REPORTS / "gate.json", judged)
    write_json(REPORTS / "metrics.json", table_of_metrics(verdict, evidence, trained))
    write_page(render(params.name, params.data, judged, REPORTS), REPORTS / "index.html")
    print_gate(judged)
    if not verdict.passed:
        raise refusal(verdict.failures())


if __name__ == "__main__":
    run(main)
