"""Five metrics of a data set's quality, each a share between 0 and 1, from counts.

Counts add up: those of two sources together are the counts of both, and the overall figure is the metric of
that sum. So a small bad source cannot hide behind a mean of shares, and a large one weighs what it weighs.
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
    """`good` of `total`."""

    good: int = 0
    total: int = 0

    @property
    def value(self) -> float:
        return self.good / self.total if self.total else 1.0

    def __add__(self, other: Share) -> Share:
        return Share(self.good + other.good, self.total + other.total)


@dataclass
class Counts:
    """What is counted of one source, or of several together. Keys of the dictionaries are columns or rules."""

    rows: int = 0
    cells: dict[str, Share] = field(default_factory=dict)  # per column: cells that are there
    consistent: dict[str, Share] = field(default_factory=dict)  # per kind of consistency
    plausible: Share = field(default_factory=Share)  # rows that keep every plausibility rule
    fresh: Share = field(default_factory=Share)
    valid: Share = field(default_factory=Share)
    violations: dict[str, dict[str, int]] = field(default_factory=dict)  # per metric: rows that broke each rule

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
    source: SourceTable, rules: list[Rule], violations: ViolationCounts, in_time: dict[str, Share], contract: Validate
) -> Counts:
    """What is counted of one source.

    Args:
        source: Its rows, and the cells that are there.
        rules: All that its rows were checked by.
        violations: The rows that break them.
        in_time: Kinds of consistency that are counted over steps in time (`sampling_steps`).
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
        cells={column: Share(there, rows) for column, there in source.cells.items()},
        consistent=consistent | in_time,
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
    """Cells that are there / cells, over the contract's columns; NaN and a list with a hole count as not there.

    completeness = sum_c(non-null cells of column c) / (rows * columns)
    """
    return sum(counts.cells.values(), Share()).value


def consistency(counts: Counts) -> float:
    """The worst of its kinds: one that is broken is not mended by three that hold.

    consistency = min(unique, ordered, regular, agreeing), where
      unique   = 1 - rows that repeat another row's key / rows; the key is group and time, or for images and
                 audio the values themselves; likewise for rows that a source earlier in the alphabet has too
      ordered  = steps with time(i) > time(i-1) / steps; a step leads from a row to the next of its group as stored
      regular  = steps with |time(i) - time(i-1) - interval| <= tolerance / steps
      agreeing = rows where two redundant columns are within their tolerance / rows, for each pair
    """
    return min((share.value for share in counts.consistent.values()), default=1.0)


def accuracy(counts: Counts) -> float:
    """Rows that keep every plausibility rule (agreement with a reference is one) / rows; 1 where there is no rule.

    accuracy = rows with minimum_r <= sum_k(factor_rk * term_rk) <= maximum_r for every rule r / rows
    """
    return counts.plausible.value


def timeliness(counts: Counts) -> float:
    """Rows that are fresh at the snapshot's time / rows; 1 where the contract asks for no freshness.

    timeliness = rows with snapshot - max_age <= time <= snapshot / rows
    """
    return counts.fresh.value


def validity(counts: Counts) -> float:
    """Rows whose values are all finite, in range, of the allowed ones, of the right length, unique if asked / rows.

    validity = rows that keep every rule on a single column / rows; a missing value is completeness' matter
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
    """Per metric: value, threshold, passed and the columns (or kinds, or rules) that cost most."""
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
    """False where the contract gives nothing to measure: the value is then 1, and no evidence."""
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
    """Lines of: where, metric, found, needed, worst columns."""
    cells = [("where", "metric", "found", "needed", "worst columns")]
    cells += [(w, m, f"{found:.4f}", f"{needed:.4f}", ", ".join(worst) or "-") for w, m, found, needed, worst in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    return "\n".join(
        "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
        for row in cells
    )
