"""Find the rows of a table that violate rules, and mark these rows in one boolean column for each violated rule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.validate.row_rules import Rule


@dataclass(frozen=True)
class ViolationCounts:
    """For one source, the numbers of rows that violate rules of the data contract.

    rows: Number of rows that violate at least one rule.
    by_metric: For each quality metric, the number of rows that violate at least one of the metric's rules.
    by_rule: For each violated rule, the number of rows that violate it; each key is the rule's text (`Rule.reason`).
    """

    rows: int
    by_metric: dict[str, int]
    by_rule: dict[str, int]


@dataclass(frozen=True)
class FlaggedRows:
    """A canonical table (`contract.SourceTable`) with a boolean column for each violated rule.

    If a rule compares rows with each other, pandera can report a violation although no row violates the rule. In this
    case, the rule's column is False in all rows.
    """

    table: ir.Table
    violated: list[Rule]

    def flag(self, number: int) -> ir.BooleanColumn:
        """Return the boolean column for the rule `violated[number]`; it is True for the rows that violate this rule."""
        return self.table[_flag_column(number)]

    def valid_rows(self) -> ir.Table:
        """Return the rows that do not violate any rule."""
        if not self.violated:
            return self.table
        return self.table.filter(~reduce(or_, self._flags())).drop(*self._names())

    def invalid_rows(self) -> ir.Table:
        """Return the rows that violate at least one rule, with an additional column `reason`.

        The column contains the reasons of all rules that the row violates, separated by '; '.
        """
        import ibis

        if not self.violated:
            return self.table.limit(0).mutate(reason=ibis.literal(""))
        texts = [
            flag.ifelse(_reason_text(self.table, rule).concat("; "), ibis.literal(""))
            for flag, rule in zip(self._flags(), self.violated, strict=True)
        ]
        joined = reduce(lambda a, b: a.concat(b), texts, ibis.literal("")).re_replace("; $", "")
        return self.table.filter(reduce(or_, self._flags())).mutate(reason=joined).drop(*self._names())

    def with_rule(self, table: ir.Table, rule: Rule) -> FlaggedRows:
        """Return the rows of `table`, which are these rows with additional columns, with a flag for one more rule."""
        flag = {_flag_column(len(self.violated)): ~rule.holds(table)}
        return FlaggedRows(table.mutate(**flag).select(*self.table.columns, *flag), [*self.violated, rule])

    def count(self) -> ViolationCounts:
        """Return the numbers of rows that violate rules, counted by a single query."""
        if not self.violated:
            return ViolationCounts(0, {}, {})
        flags = self._flags()
        sums = {_flag_column(i): flag.sum() for i, flag in enumerate(flags)}
        by_metric: dict[str, list[ir.BooleanColumn]] = {}
        for flag, rule in zip(flags, self.violated, strict=True):
            by_metric.setdefault(rule.metric, []).append(flag)
        sums |= {f"metric_{metric}": reduce(or_, metric_flags).sum() for metric, metric_flags in by_metric.items()}
        row = self.table.aggregate(rows=reduce(or_, flags).sum(), **sums).to_pyarrow().to_pylist()[0]
        return ViolationCounts(
            int(row["rows"]),
            {metric: int(row[f"metric_{metric}"]) for metric in by_metric},
            {rule.reason: int(row[_flag_column(i)]) for i, rule in enumerate(self.violated)},
        )

    def _names(self) -> list[str]:
        return [_flag_column(number) for number in range(len(self.violated))]

    def _flags(self) -> list[ir.BooleanColumn]:
        return [self.table[name] for name in self._names()]


def flag_violations(table: ir.Table, rules: list[Rule]) -> FlaggedRows:
    """Check a canonical table against rules, and add a boolean column for each rule that is violated."""
    violated = violated_rules(table, rules)
    return FlaggedRows(
        table.mutate(**{_flag_column(i): ~rule.holds(table) for i, rule in enumerate(violated)}), violated
    )


def violated_rules(table: ir.Table, rules: list[Rule]) -> list[Rule]:
    """Return the rules that a canonical table violates according to pandera."""
    import pandera.ibis as pandera
    from pandera.errors import SchemaErrors

    by_reason = {rule.reason: rule for rule in rules}
    checks = [
        # One failure case per rule is enough, because the flags later identify all rows that violate the rule.
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


def _flag_column(number: int) -> str:
    return f"broken_{number}"


def _reason_text(table: ir.Table, rule: Rule) -> ir.StringColumn:
    import ibis

    if rule.text_column is None:
        return ibis.literal(rule.reason)
    return ibis.literal(f"{rule.reason} (found '").concat(table[rule.text_column].fill_null("")).concat("')")
