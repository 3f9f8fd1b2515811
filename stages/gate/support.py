"""Judge whether every class has enough samples, and decide what the gate does with means over a part of the classes.

If a class has no sample in a split, every mean over classes is undefined for this split. The reports then have null,
and in addition the means over the other classes (`partial`). The gate accepts these only with `gate.support: null`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.gate.evidence import Evidence, Record
from stages.metrics.confusion import MEANS, name_classes
from stages.params.common import TargetName
from stages.params.gate import Gate
from stages.report.schemas.data import BalanceReport
from stages.report.verdict import PIPELINE, SUPPORT, Check

JUDGED = frozenset([*MEANS, "retention.f1_macro"])  # the checks of means over classes


def check_support(gate: Gate, balance: Record) -> list[Check]:
    """Return the checks of the smallest number of samples of a class, in validation and in test.

    The list is empty if `gate.support` is null.

    Args:
        gate: The thresholds.
        balance: The report on the splits.
    """
    return [] if gate.support is None else [_check_split(split, gate.support, balance) for split in SUPPORT]


def _check_split(split: str, least: int, balance: Record) -> Check:
    value, reason = None, balance.fault
    if not reason:
        counts = BalanceReport.model_validate(balance.report).splits.counts(split).classes
        value = float(min(counts.values()))
        few = [f"class {name!r} has {count or 'no'} sample(s)" for name, count in counts.items() if count < least]
        if few:
            reason = (
                f"in the {split} split, {', '.join(few)}, and at least {least} are needed; collect the class in more "
                "groups, change prepare.split, or set gate.support: null to accept that the class is not measured"
            )
    return Check(
        name=SUPPORT[split],
        target=PIPELINE,
        value=value,
        operator=">=",
        threshold=float(least),
        passed=not reason,
        reason=reason,
    )


def accept_partial_means(gate: Gate, report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a report in which the means over a part of the classes replace undefined means, if the gate accepts them.

    Args:
        gate: The thresholds. The means are accepted if `gate.support` is null.
        report: An evaluation report, or the scores of the trained network on one split.
    """
    partial = report.get("partial")
    if gate.support is not None or not isinstance(partial, Mapping):
        return report
    return {**report, **{name: partial[name] for name in MEANS if name in partial and report.get(name) is None}}


def accept_in_evidence(gate: Gate, evidence: Mapping[TargetName, Evidence]) -> dict[TargetName, Evidence]:
    """Return the evidence with the means that the gate accepts, as in `accept_partial_means`."""
    return {
        target: Evidence(accept_partial_means(gate, own.report), own.sha256, own.measured_sha256, own.fault)
        for target, own in evidence.items()
    }


def accept_in_training(gate: Gate, trained: Record) -> Record:
    """Return the report on training with the means of the test split that the gate accepts."""
    test = trained.report.get("test")
    if not isinstance(test, Mapping):
        return trained
    return Record({**trained.report, "test": accept_partial_means(gate, test)}, trained.fault)


def explain_undefined(parent: Any) -> str:
    """Return why a mean in this report or split is undefined: the classes without a sample; or "" if it is not."""
    partial = parent.get("partial") if isinstance(parent, Mapping) else None
    return f"undefined, because there is no sample of class {', '.join(partial['absent'])}" if partial else ""


def describe_partial(report: Mapping[str, Any]) -> str:
    """Return the text that says which classes have a test sample; or "" if every class has one."""
    partial = report.get("partial")
    return name_classes(partial["classes"], partial["absent"]) if isinstance(partial, Mapping) else ""


def name_partial_means(checks: list[Check], report: Mapping[str, Any]) -> list[Check]:
    """Return the checks, where each check of a mean over a part of the classes says so in its note."""
    over = describe_partial(report)
    return [
        check.model_copy(update={"note": f"over {over}"})
        if over and check.name in JUDGED and check.value is not None
        else check
        for check in checks
    ]


def support_notes(gate: Gate, evidence: Mapping[TargetName, Evidence], trained: Record) -> list[str]:
    """Return notes that name the classes without a sample, if the gate accepts them (`gate.support` is null).

    Args:
        gate: The thresholds.
        evidence: The evaluation report of each target.
        trained: The report on the trained float model.
    """
    if gate.support is not None:
        return []
    notes = []
    partials = (own.report.get("partial") for own in evidence.values() if not own.fault)
    if partial := next(filter(None, partials), None):
        notes.append(
            f"no test sample is of class {', '.join(partial['absent'])}, so nothing is known about how well the model "
            "recognises it; every mean over classes, such as macro F1, is over "
            f"{name_classes(partial['classes'], partial['absent'])}"
        )
    validation = {} if trained.fault else trained.report.get("validation", {})
    if partial := validation.get("partial"):
        notes.append(
            f"no validation sample is of class {', '.join(partial['absent'])}; the validation scores of the training "
            f"are over {name_classes(partial['classes'], partial['absent'])}"
        )
    return notes
