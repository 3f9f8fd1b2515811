"""Which rows break which rule: one pass of the rules over a table, and what follows from its flags."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.validate.row_rules import Rule


@dataclass(frozen=True)
class BrokenCounts:
    """How many rows break any rule, a rule of each metric that has one, and each rule (by its reason)."""

    rows: int
    by_metric: dict[str, int]
    by_rule: dict[str, int]


@dataclass(frozen=True)
class FlaggedRows:
    """A canonical table with a boolean column for each of `broken`, the rules that some row breaks.

    pandera names a rule that compares rows with each other also where no row breaks it: its flags are then all false.
    """

    table: ir.Table
    broken: list[Rule]

    def flag(self, number: int) -> ir.BooleanColumn:
        """True where a row breaks `broken[number]`."""
        return self.table[_column(number)]

    def valid(self) -> ir.Table:
        """The rows that break no rule."""
        if not self.broken:
            return self.table
        return self.table.filter(~reduce(or_, self._flags())).drop(*self._names())

    def invalid(self) -> ir.Table:
        """The rows that break a rule, with `reason`: every rule that they break, joined by '; '."""
        import ibis

        if not self.broken:
            return self.table.limit(0).mutate(reason=ibis.literal(""))
        texts = [
            flag.ifelse(_reason(self.table, rule).concat("; "), ibis.literal(""))
            for flag, rule in zip(self._flags(), self.broken, strict=True)
        ]
        joined = reduce(lambda a, b: a.concat(b), texts, ibis.literal("")).re_replace("; $", "")
        return self.table.filter(reduce(or_, self._flags())).mutate(reason=joined).drop(*self._names())

    def count(self) -> BrokenCounts:
        if not self.broken:
            return BrokenCounts(0, {}, {})
        flags = self._flags()
        sums = {_column(i): flag.sum() for i, flag in enumerate(flags)}
        by_metric: dict[str, list[ir.BooleanColumn]] = {}
        for flag, rule in zip(flags, self.broken, strict=True):
            by_metric.setdefault(rule.metric, []).append(flag)
        sums |= {f"metric_{metric}": reduce(or_, own).sum() for metric, own in by_metric.items()}
        row = self.table.aggregate(rows=reduce(or_, flags).sum(), **sums).to_pyarrow().to_pylist()[0]
        return BrokenCounts(
            int(row["rows"]),
            {metric: int(row[f"metric_{metric}"]) for metric in by_metric},
            {rule.reason: int(row[_column(i)]) for i, rule in enumerate(self.broken)},
        )

    def _names(self) -> list[str]:
        return [_column(number) for number in range(len(self.broken))]

    def _flags(self) -> list[ir.BooleanColumn]:
        return [self.table[name] for name in self._names()]


def flag_rows(table: ir.Table, rules: list[Rule]) -> FlaggedRows:
    """Run the rules over a canonical table, and flag its rows by those rules that at least one row breaks."""
    broken = broken_rules(table, rules)
    return FlaggedRows(table.mutate(**{_column(i): ~rule.holds(table) for i, rule in enumerate(broken)}), broken)


def broken_rules(table: ir.Table, rules: list[Rule]) -> list[Rule]:
    """The rules that at least one row of a canonical table breaks. pandera runs them."""
    import pandera.ibis as pandera
    from pandera.errors import SchemaErrors

    by_reason = {rule.reason: rule for rule in rules}
    checks = [
        # One failure case is enough here: the rows themselves are found by their flags.
        pandera.Check(lambda d, rule=rule: rule.holds(d.table), name=rule.reason, n_failure_cases=1, ignore_na=False)
        for rule in rules
    ]
    columns = {name: pandera.Column(nullable=True) for name in table.columns}
    try:
        pandera.DataFrameSchema(columns, checks=checks, strict=True).validate(table, lazy=True)
    except SchemaErrors as errors:
        names = {error.check.name for error in errors.schema_errors}
        return [rule for reason, rule in by_reason.items() if reason in names]
    return []


def _column(number: int) -> str:
    return f"broken_{number}"


def _reason(table: ir.Table, rule: Rule) -> ir.StringColumn:
    import ibis

    if rule.shows is None:
        return ibis.literal(rule.reason)
    return ibis.literal(f"{rule.reason} (found '").concat(table[rule.shows].fill_null("")).concat("')")
