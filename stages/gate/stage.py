"""Judge the reports against the thresholds, record the verdict, and write the HTML page.

The stage also succeeds if the gate refuses the model, so that DVC keeps the verdict and the numbers. The `enforce`
stage fails then.

The verdict depends only on the reports, the parameters and the digests of the files that the reports describe, so the
same numbers give the same verdict on any branch. A check fails if its number is missing, not finite, stale or in
conflict with another report.

Each check belongs to a target. The checks of the reports `quality`, `balance`, `train` and `compress` belong to the
target "pipeline". These reports concern every exported file, so the gate fails if one of these checks fails.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from stages.core import command
from stages.core.errors import ParameterError
from stages.core.files import write_json
from stages.gate.evidence import NOISE, REPORTS, Evidence, Record, digests, read_evidence, read_records
from stages.gate.stale_targets import remove_stale_targets
from stages.gate.support import (
    accept_in_evidence,
    accept_in_training,
    check_support,
    describe_partial,
    explain_undefined,
    name_partial_means,
    support_notes,
)
from stages.params import load, locate_parameter
from stages.params.common import TargetName
from stages.params.gate import Budget, Gate
from stages.report.parameters_digest import parameters_digest, read_parameters
from stages.report.verdict import (
    GATE,
    PIPELINE,
    Check,
    TargetVerdict,
    Verdict,
    as_json,
)

TRAIN = "reports/train/summary.json"
Number = tuple[float | None, str]  # a value and ""; or None and the reason why it is missing

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, threshold: value >= threshold,
    "<=": lambda value, threshold: value <= threshold,
}


def judge(gate: Gate, evidence: Mapping[TargetName, Evidence], records: Mapping[str, Record]) -> Verdict:
    """Compare the reports with the thresholds, and return the verdict of the gate with all checks.

    The gate passes if no report in `records` has a fault, all required targets pass, and at least one target passes.
    The limits of targets that are not built are ignored.

    Args:
        gate: Thresholds for all targets, and limits for each target.
        evidence: The evaluation report of each built target, with the reason if the report cannot be trusted.
        records: The reports that concern all targets: "quality", "balance", "train" (the float model) and "compress".

    Raises:
        ParameterError: `gate.targets` has no limits for a built target.
    """
    unjudged = sorted(set(evidence) - set(gate.targets))
    if unjudged:
        raise ParameterError(
            locate_parameter(f"gate.targets.{unjudged[0]}"),
            "found nothing",
            "budgets for this target, because `targets` in params.yaml lists it",
            "write budgets for this target, or remove it from `targets`",
        )
    checks = [
        Check(
            name=name,
            target=PIPELINE,
            value="unsound" if record.fault else "sound",
            operator="==",
            threshold="sound",
            passed=not record.fault,
            reason=record.fault,
        )
        for name, record in records.items()
    ]
    checks += check_support(gate, records["balance"])
    passed = all(check.passed for check in checks)
    evidence, trained = accept_in_evidence(gate, evidence), accept_in_training(gate, records["train"])
    verdicts: dict[str, TargetVerdict] = {}
    for name, own in evidence.items():
        budget = gate.targets[name]
        judged = name_partial_means(_judge_target(name, gate, budget, own, trained), own.report)
        failed = [check.name for check in judged if not check.passed]
        checks += judged
        verdicts[name] = TargetVerdict(passed=not failed, required=budget.required, sha256=own.sha256, failed=failed)
    passed &= any(v.passed for v in verdicts.values()) and all(v.passed for v in verdicts.values() if v.required)
    notes = support_notes(gate, evidence, trained) + _notes(gate, evidence, trained)
    return Verdict(passed=passed, checks=checks, targets=verdicts, notes=notes)


def _judge_target(target: str, gate: Gate, budget: Budget, evidence: Evidence, trained: Record) -> list[Check]:
    report, fault = evidence.report, evidence.fault
    checks = [
        Check(
            name="report",
            target=target,
            value=evidence.measured_sha256,
            operator="==",
            threshold=evidence.sha256 or "the file's digest",
            passed=not fault,
            reason=fault,
        )
    ]

    def add(name: str, number: Number, operator: str, threshold: float | None) -> None:
        if threshold is not None:
            checks.append(_check(name, target, number, operator, threshold, fault))

    for metric, least in gate.metrics.items():
        add(metric, _number(report, metric), ">=", least)
    for metric, least in gate.retention.items():
        add(f"retention.{metric}", _retention(report, trained, metric), ">=", least)
    add("agreement", _number(report, "agreement"), ">=", gate.agreement)
    add("calibration_error", _number(report, "calibration_error"), "<=", gate.calibration_error)
    size = _number(report, "size_bytes")
    add("size_kb", _ratio(size, (1000.0, "")), "<=", budget.size_kb)
    before = _of_trained(trained, "size_bytes")
    add("compression", _ratio(before, size), ">=", budget.compression)
    add("latency_p95_ms", _number(report, "latency_ms.p95"), "<=", budget.latency_p95_ms)
    add("memory_mb", _number(report, "memory_mb"), "<=", budget.memory_mb)

    if len(checks) == 1:
        checks.append(
            Check(
                name="thresholds",
                target=target,
                value=0.0,
                operator=">=",
                threshold=1.0,
                passed=False,
                reason="there is nothing to judge, because every threshold of this target is null",
            )
        )
    return checks


def _check(name: str, target: str, number: Number, operator: str, threshold: float, fault: str) -> Check:
    value, missing = number
    reason = fault or missing
    if not fault and value is not None and not OPERATORS[operator](value, threshold):
        reason = f"{value:.6g} is {'below' if operator == '>=' else 'above'} {threshold:.6g}"
    return Check(
        name=name,
        target=target,
        value=value,
        operator=operator,
        threshold=threshold,
        passed=value is not None and not reason,
        reason=reason,
    )


def _notes(gate: Gate, evidence: Mapping[TargetName, Evidence], trained: Record) -> list[str]:
    """Return notes that explain the verdict to its reader: unexpectedly good results, and caveats on the intervals."""
    sound = {target: own.report for target, own in evidence.items() if not own.fault}
    better = []
    for metric in gate.retention:
        kept = {target: _retention(report, trained, metric)[0] or 0.0 for target, report in sound.items()}
        best = max(kept, key=kept.__getitem__, default=None)
        if best and kept[best] > 1 + NOISE:
            better.append(f"{metric}: {best} has a retention of {kept[best]:.2%}")
    notes = []
    if better:
        notes.append(
            f"an exported file is better than the trained network ({', '.join(better)}): the additional training "
            "during compression gained more than compression lost, and retention shows only the net effect; set more "
            "epochs for the `train` stage, so that the network is fully trained before it is compressed"
        )
    caveats = (report["intervals"]["caveat"] for report in sound.values() if report.get("intervals"))
    return notes + list(dict.fromkeys(filter(None, caveats)))


def _retention(report: Mapping[str, Any], trained: Record, metric: str) -> Number:
    return _ratio(_number(report, metric), _of_trained(trained, f"test.{metric}"))


def _of_trained(trained: Record, path: str) -> Number:
    return (None, trained.fault) if trained.fault else _number(trained.report, path, TRAIN)


def _number(report: Mapping[str, Any], path: str, where: str = "its report") -> Number:
    """Return the number at a dotted path of a report and "", or None and the reason why there is no finite number.

    If the path leads to an estimate with an interval, the number is the `value` of the estimate.
    """
    value: Any = report
    parent: Any = None
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None, f"{path} is missing from {where}"
        parent, value = value, value[part]
    if value is None and (reason := explain_undefined(parent)):
        return None, f"{path} in {where} is {reason}"
    if isinstance(value, Mapping):
        value = value.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, f"{path} in {where} is {json.dumps(value)}, not a number"
    if not math.isfinite(value):
        return None, f"{path} in {where} is {value}"
    return float(value), ""


def _ratio(numerator: Number, denominator: Number) -> Number:
    if numerator[0] is None or denominator[0] is None:
        return None, numerator[1] or denominator[1]
    if denominator[0] <= 0:
        return None, f"a ratio with the denominator {denominator[0]:g} is undefined"
    return numerator[0] / denominator[0], ""


def table_of_metrics(
    gate: Gate, verdict: Verdict, evidence: Mapping[TargetName, Evidence], trained: Record
) -> dict[str, bool | dict[str, float | bool | str | None]]:
    """Return the content of reports/metrics.json: whether the gate passed, and one flat mapping of numbers per target.

    `dvc metrics show` and `dvc exp show` print these numbers.

    If a class has no test sample, the entry `classes_with_samples` names the classes that have one. `f1_macro` is then
    the mean over these classes if `gate.support` is null, and otherwise null.

    Args:
        gate: The thresholds.
        verdict: The verdict of the gate.
        evidence: The evaluation report of each target. A number that is missing from the report is left out.
        trained: The report on the trained float model.
    """
    rows: dict[str, dict[str, float | bool | str | None]] = {}
    for target, own in accept_in_evidence(gate, evidence).items():
        numbers = {
            "accuracy": _number(own.report, "accuracy"),
            "f1_macro": _number(own.report, "f1_macro"),
            "agreement": _number(own.report, "agreement"),
            "retention": _retention(own.report, trained, "accuracy"),
            "calibration_error": _number(own.report, "calibration_error"),
            "size_kb": _ratio(_number(own.report, "size_bytes"), (1000.0, "")),
            "compression": _ratio(_of_trained(trained, "size_bytes"), _number(own.report, "size_bytes")),
            "latency_p50_ms": _number(own.report, "latency_ms.p50"),
            "latency_p95_ms": _number(own.report, "latency_ms.p95"),
            "memory_mb": _number(own.report, "memory_mb"),
        }
        rows[target] = {name: value for name, (value, _) in numbers.items() if value is not None}
        rows[target]["passed"] = verdict.targets[target].passed
        if over := describe_partial(own.report):
            rows[target] |= {"f1_macro": numbers["f1_macro"][0], "classes_with_samples": over}
    return {"passed": verdict.passed, **rows}


def main() -> None:
    command.parser("gate", __doc__).parse_args()
    from stages.gate.previous import read_previous_metrics
    from stages.report.page.provenance import read_build
    from stages.report.page.render import render, write_page
    from stages.report.terminal import print_gate

    params = load()
    if removed := remove_stale_targets(params.targets):
        print(f"removed, because params.yaml does not list the target: {', '.join(removed)}")
    classes = list(params.data.classes.values())
    evidence = {target: read_evidence(target, classes) for target in params.targets}
    records = read_records(params.data, evidence)
    verdict = judge(params.gate, evidence, records).model_copy(
        update={"inputs": digests(params.targets), "parameters": parameters_digest(*read_parameters())}
    )
    judged = as_json(params.name, verdict)
    write_json(GATE, judged)
    write_json(REPORTS / "metrics.json", table_of_metrics(params.gate, verdict, evidence, records["train"]))
    page = render(params.name, params.data, judged, read_build(params.seed), read_previous_metrics(params.name))
    write_page(page, REPORTS / "index.html")
    print_gate(judged)
