"""Compute the five quality metrics of a data set from counts. Each metric is a fraction between 0 and 1.

The counts of all sources are added, and the overall metrics are computed from the sums. A mean of the sources' metrics
would give a small source the same weight as a large one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stages.params.validate import Thresholds, Validate

if TYPE_CHECKING:
    from stages.validate.contract import SourceTable
    from stages.validate.flagged_rows import ViolationCounts
    from stages.validate.row_rules import Rule

METRICS = ("completeness", "consistency", "accuracy", "timeliness", "validity")
WORST_SHOWN = 3


@dataclass
class Share:
    """The fraction `good` / `total`; its value is 1 if `total` is 0."""

    good: int = 0
    total: int = 0

    @property
    def value(self) -> float:
        """The fraction, 0 to 1."""
        return self.good / self.total if self.total else 1.0

    def __add__(self, other: Share) -> Share:
        return Share(self.good + other.good, self.total + other.total)


@dataclass
class Counts:
    """The counts from which the quality metrics are computed, for one source or summed over several sources.

    Each `Share` counts the good items and all items. The key for a column is the column's name, and the key for a rule
    is the text that describes the rule.
    """

    rows: int = 0
    cells: dict[str, Share] = field(default_factory=dict)  # per column: cells with a value
    consistent: dict[str, Share] = field(default_factory=dict)  # per consistency rule: rows or time steps that meet it
    plausible: Share = field(default_factory=Share)  # rows that meet every plausibility rule
    fresh: Share = field(default_factory=Share)
    valid: Share = field(default_factory=Share)
    violations: dict[str, dict[str, int]] = field(default_factory=dict)  # per metric and rule: rows that violate it

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.rows + other.rows,
            _add(self.cells, other.cells),
            _add(self.consistent, other.consistent),
            self.plausible + other.plausible,
            self.fresh + other.fresh,
            self.valid + other.valid,
            {m: dict(Counter(self.violations.get(m, {})) + Counter(other.violations.get(m, {}))) for m in METRICS},
        )


def _add(a: dict[str, Share], b: dict[str, Share]) -> dict[str, Share]:
    return {key: a.get(key, Share()) + b.get(key, Share()) for key in {**a, **b}}


def count_source(
    source: SourceTable,
    rules: list[Rule],
    violations: ViolationCounts,
    steps: dict[str, Share],
    contract: Validate,
) -> Counts:
    """Return the counts from which the quality metrics of one source are computed.

    Args:
        source: The canonical table of the source, with its numbers of rows and cells.
        rules: All rules against which the rows of the source were checked.
        violations: The numbers of rows that violate these rules.
        steps: For each rule about time steps, the fraction of steps that meet the rule (`sampling_steps`).
        contract: The data contract.
    """
    rows = source.rows

    def share_without_violation(metric: str) -> Share:
        return Share(rows - violations.by_metric.get(metric, 0), rows)

    consistent = {
        rule.reason: Share(rows - violations.by_rule.get(rule.reason, 0), rows)
        for rule in rules
        if rule.metric == "consistency"
    }
    return Counts(
        rows=rows,
        cells={column: Share(present, rows) for column, present in source.cells.items()},
        consistent=consistent | steps,
        plausible=share_without_violation("accuracy") if contract.plausibility else Share(),
        fresh=share_without_violation("timeliness") if contract.freshness else Share(),
        valid=share_without_violation("validity"),
        violations={
            metric: {
                r.reason: violations.by_rule[r.reason]
                for r in rules
                if r.metric == metric and r.reason in violations.by_rule
            }
            for metric in METRICS
        },
    )


def completeness(counts: Counts) -> float:
    """Return the fraction of cells that have a value; NaN and a list with a missing element count as missing.

    completeness = sum_c(non-null cells of column c) / (rows * columns)
    """
    return sum(counts.cells.values(), Share()).value


def consistency(counts: Counts) -> float:
    """Return the lowest of the consistency fractions, so that a high fraction does not hide a low one.

    consistency = min(unique, agreed, ordered, regular, agreeing), where
      unique   = 1 - (rows that repeat another row) / rows. If there are several sources, a second fraction counts
                 the rows that also occur in a source whose name is alphabetically earlier.
      agreed   = 1 - (rows with the key of another row, but other values) / rows. The key of a row is its group and
                 time, or its values for images and audio. If there are several sources, a second fraction counts the
                 rows with which another source disagrees.
      ordered  = (steps with time(i) > time(i-1)) / steps; a step leads from a row to the next stored row of its group
      regular  = (steps with |time(i) - time(i-1) - interval| <= tolerance) / steps
      agreeing = (rows in which two redundant columns differ at most by their tolerance) / rows, for each such pair
    """
    return min((share.value for share in counts.consistent.values()), default=1.0)


def accuracy(counts: Counts) -> float:
    """Return the fraction of rows that meet all plausibility rules; 1 if there are no plausibility rules.

    A plausibility rule can require, for example, that a value agrees with a reference measurement.

    accuracy = (rows with minimum_r <= sum_k(factor_rk * term_rk) <= maximum_r for every rule r) / rows
    """
    return counts.plausible.value


def timeliness(counts: Counts) -> float:
    """Return the fraction of rows with a recent time, not after the snapshot; 1 if the contract has no freshness rule.

    timeliness = (rows with snapshot - max_age <= time <= snapshot) / rows, where `snapshot` is the snapshot's time
    """
    return counts.fresh.value


def validity(counts: Counts) -> float:
    """Return the fraction of rows whose values are all finite, in range, allowed, of the right length and unique.

    validity = (rows that meet every rule on a single column) / rows. A missing value lowers completeness, not validity.
    """
    return counts.valid.value


FORMULAS = {
    "completeness": completeness,
    "consistency": consistency,
    "accuracy": accuracy,
    "timeliness": timeliness,
    "validity": validity,
}


def judge_metrics(counts: Counts, thresholds: Thresholds) -> dict[str, dict[str, Any]]:
    """Compare each quality metric with its threshold.

    The result has, for each metric, the value, the threshold, whether the metric passed, whether it was measured, and
    the columns or rules that lower the value the most.
    """
    judged = {}
    for metric, formula in FORMULAS.items():
        value, threshold = formula(counts), getattr(thresholds, metric)
        judged[metric] = {
            "value": value,
            "threshold": threshold,
            "passed": value >= threshold,
            "measured": _is_measured(metric, counts),
            "worst_columns": _worst_columns(metric, counts),
        }
    return judged


def _is_measured(metric: str, counts: Counts) -> bool:
    """Return False if the data contract has no rule for the metric.

    The value of such a metric is 1, although nothing was measured.
    """
    if metric == "accuracy":
        return counts.plausible.total > 0
    return counts.fresh.total > 0 if metric == "timeliness" else True


def _worst_columns(metric: str, counts: Counts) -> list[str]:
    if metric in ("completeness", "consistency"):
        shares = counts.cells if metric == "completeness" else counts.consistent
        lost = {name: 1 - share.value for name, share in shares.items()}
    else:
        lost = {name: count / counts.rows for name, count in counts.violations.get(metric, {}).items() if counts.rows}
    ranked = sorted((name for name in lost if lost[name] > 0), key=lambda name: (-lost[name], name))
    return [f"{name} ({_percent(lost[name])})" for name in ranked[:WORST_SHOWN]]


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"


def format_table(rows: Iterable[tuple[str, str, float, float, list[str]]]) -> str:
    """Format rows of (where, metric, value, threshold, worst columns) as a text table with a header."""
    cells = [("where", "metric", "found", "needed", "worst columns")]
    cells += [(w, m, f"{value:.4f}", f"{needed:.4f}", ", ".join(worst) or "-") for w, m, value, needed, worst in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    return "\n".join(
        "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
        for row in cells
    )
