"""The data contract's rules for single rows, as Ibis expressions with the same results on DuckDB and Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Literal

from stages.validate.contract import is_complete, text_column_name

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.params.common import Data
    from stages.params.validate import Column, Plausible, Redundant, Validate

Metric = Literal["completeness", "consistency", "accuracy", "timeliness", "validity"]

STATISTICS = ("mean", "minimum", "maximum", "length")  # statistics of a `values` column that plausibility rules can use
# stages.validate.cross_source_duplicates adds these columns
DUPLICATE_COLUMN = "copied_from_another_source"
CONFLICT_COLUMN = "disputed_by_another_source"
LARGEST_64 = 1.7976931348623157e308
LARGEST_32 = 3.4028234663852886e38


@dataclass(frozen=True)
class Rule:
    """A rule of the data contract that every row must meet.

    metric: The quality metric that counts violations of the rule.
    columns: Names of the columns that the rule reads.
    reason: The text that is stored with each row that violates the rule.
    holds: A function that takes a canonical table and returns a boolean column: True for the rows that meet the rule,
        and False for all other rows.
    text_column: For a rule about text that could not be parsed, the name of the column with this text. The text is
        added to the reason.
    """

    metric: Metric
    columns: tuple[str, ...]
    reason: str
    holds: Callable[[ir.Table], ir.BooleanColumn]
    text_column: str | None = None


def build_rules(data: Data, contract: Validate, snapshot: datetime, texts: Iterable[str] = ()) -> list[Rule]:
    """Return all rules that the rows of a source must meet; rules that are fast to check come first.

    Args:
        data: The task's `data` parameters.
        contract: The data contract.
        snapshot: Time of the snapshot, from which the rule about freshness computes the age of a row.
        texts: Names of the columns that were collected as text although the contract requires numbers or times.
    """
    rules: list[Rule] = []
    for name, column in contract.columns.items():
        if name in texts:
            rules.append(_readable_rule(name, column))
        rules += _column_rules(name, column, data, name in texts)
    rules += _duplicate_rules(data)
    rules += [_agreement_rule(pair) for pair in contract.redundant]
    rules += [_plausibility_rule(rule, contract) for rule in contract.plausibility]
    if contract.freshness is not None:
        rules.append(_freshness_rule(contract.freshness.column, contract.freshness.max_age_s, snapshot))
    return rules


def _readable_rule(name: str, column: Column) -> Rule:
    what = {"float": "number", "integer": "whole number", "timestamp": "time"}[column.type]
    return Rule(
        "validity",
        (name,),
        f"{name}: not a {what}",
        lambda t: t[text_column_name(name)].isnull(),
        text_column_name(name),
    )


def _column_rules(name: str, column: Column, data: Data, text: bool) -> list[Rule]:
    rules: list[Rule] = []

    def add(metric: Metric, what: str, holds: Callable[[ir.Table], ir.BooleanColumn]) -> None:
        rules.append(Rule(metric, (name,), f"{name}: {what}", holds))

    if column.type == "values":
        if not column.nullable:
            add("completeness", "missing or incomplete", lambda t: is_complete(t, name))
        add("validity", "infinite", lambda t: _or_null(t[name], _elements_within(t[name], -LARGEST_32, LARGEST_32)))
        low, high = _bounds(column)
        add("validity", f"outside {_span(column)}", lambda t: _or_null(t[name], _elements_within(t[name], low, high)))
        if data.image is not None and name in data.columns:
            length = len(data.channels) * data.image.height * data.image.width
            add("validity", f"not {length} values", lambda t: _or_null(t[name], t[name].length() == length))
        return rules
    if not column.nullable:
        add(
            "completeness",
            "missing",
            lambda t: t[name].notnull() | (t[text_column_name(name)].notnull() if text else False),
        )
    if column.type == "float":
        add("validity", "infinite", lambda t: _or_null(t[name], t[name].abs() <= LARGEST_64))
    if column.minimum is not None or column.maximum is not None:
        add("validity", f"outside {_span(column)}", lambda t: _or_null(t[name], _within(t[name], column)))
    allowed = sorted(data.classes) if name == data.label else column.allowed
    if allowed is not None:
        what = "unknown label" if name == data.label else "not an allowed value"
        add("validity", what, lambda t: _or_null(t[name], t[name].isin(allowed)))
    if column.unique:
        rules.append(Rule("validity", (name,), f"{name}: not unique", lambda t: t[name].isnull() | _is_unique(t, name)))
    return rules


def key_columns(data: Data) -> list[str]:
    """Return the columns that identify a row: group and time of a series, the values of an image or a clip."""
    return [data.group, data.time] if data.time is not None else data.columns


def compared_columns(data: Data, columns: Iterable[str]) -> list[str]:
    """Return those of `columns` in which two rows with the same key must agree.

    Two rows of a series must agree in all columns. Two equal images or clips must have the same label; their group and
    the name of their file may differ.
    """
    key = key_columns(data)
    return [name for name in columns if name not in key] if data.kind == "series" else [data.label]


def conflict_reason(data: Data) -> str:
    """Return the part of a reason that says in what two contradictory rows agree and differ."""
    return f"the same {' and '.join(key_columns(data))}, but {'other' if data.kind == 'series' else 'another'} " + (
        "values" if data.kind == "series" else data.label
    )


def _duplicate_rules(data: Data) -> list[Rule]:
    """Return the rules on rows with the same key.

    Of rows that agree, one is kept. If they do not agree, it is unknown which row is right, so none is kept.
    """
    key = key_columns(data)

    def is_keyless(table: ir.Table) -> ir.BooleanColumn:
        return reduce(or_, [table[name].isnull() for name in key])

    def is_single(table: ir.Table) -> ir.BooleanColumn:
        return is_keyless(table) | _is_first(table, [*key, *compared_columns(data, table.columns)])

    def is_undisputed(table: ir.Table) -> ir.BooleanColumn:
        return is_keyless(table) | _agrees(table, key, compared_columns(data, table.columns))

    return [
        Rule("consistency", tuple(key), f"duplicate of another row ({', '.join(key)})", is_single),
        Rule("consistency", tuple(key), f"conflict with another row ({conflict_reason(data)})", is_undisputed),
    ]


def _is_unique(table: ir.Table, name: str) -> ir.BooleanColumn:
    """Return a boolean column that is False for rows with the same value in a column.

    If these rows are equal in every column, it is True for one of them.
    """
    others = [column for column in table.columns if column != name]
    return _agrees(table, [name], others) & _is_first(table, [name, *others])


def _is_first(table: ir.Table, key: list[str]) -> ir.BooleanColumn:
    """Return a boolean column that is True for one row of each set of rows with the same values in the `key` columns.

    This row is the first when the set is sorted by all other columns, so that the order of the input does not matter.
    """
    import ibis

    order = [ibis.asc(table[name], nulls_first=True) for name in table.columns if name not in key]
    return ibis.row_number().over(group_by=key, order_by=order or key) == 0


def _agrees(table: ir.Table, key: list[str], compared: list[str]) -> ir.BooleanColumn:
    """Return a boolean column that is True for a row if all rows with the same key are equal in the compared columns.

    Null is a value like any other.
    """
    import ibis

    def rows_alike(columns: list[str]) -> ir.IntegerColumn:
        return table.count().over(ibis.window(group_by=columns))

    return rows_alike(key) == rows_alike([*key, *compared])


def _agreement_rule(pair: Redundant) -> Rule:
    first, second = pair.columns

    def holds(table: ir.Table) -> ir.BooleanColumn:
        a, b = table[first], table[second]
        numbers = a.type().is_numeric() and b.type().is_numeric()
        return _or_null(a - b if numbers else a, (a - b).abs() <= pair.tolerance if numbers else a == b)

    return Rule("consistency", pair.columns, f"{first} and {second} disagree", holds)


def _plausibility_rule(rule: Plausible, contract: Validate) -> Rule:
    columns = tuple(dict.fromkeys(column_of_term(term, contract) for term in rule.terms))

    def holds(table: ir.Table) -> ir.BooleanColumn:
        total = reduce(lambda a, b: a + b, [_term(table, t, contract) * f for t, f in rule.terms.items()])
        bounds = []
        if rule.minimum is not None:
            bounds.append(total >= rule.minimum)
        if rule.maximum is not None:
            bounds.append(total <= rule.maximum)
        return reduce(and_, bounds).fill_null(True)  # the metric completeness counts missing values

    return Rule("accuracy", columns, f"not plausible: {rule.name}", holds)


def _term(table: ir.Table, term: str, contract: Validate) -> ir.FloatingColumn:
    if term in contract.columns:
        return table[term].cast("float64")
    name, statistic = term.rsplit(".", 1)
    values = table[name]
    return {
        "mean": lambda: values.sums().cast("float64") / values.length(),
        "minimum": values.mins,
        "maximum": values.maxs,
        "length": values.length,
    }[statistic]().cast("float64")


def _freshness_rule(name: str, max_age_s: float, snapshot: datetime) -> Rule:
    import ibis

    newest = snapshot.astimezone(UTC).replace(tzinfo=None)
    oldest = newest - timedelta(seconds=max_age_s)
    return Rule(
        "timeliness",
        (name,),
        f"{name}: not between {oldest.isoformat()} and the snapshot's time {newest.isoformat()}",
        lambda t: _or_null(t[name], t[name].between(ibis.literal(oldest), ibis.literal(newest))),
    )


def _or_null(cell: ir.Column, condition: ir.BooleanColumn) -> ir.BooleanColumn:
    return (cell.isnull() | condition).fill_null(True)


def _bounds(column: Column) -> tuple[float, float]:
    low = -LARGEST_64 if column.minimum is None else column.minimum
    return low, LARGEST_64 if column.maximum is None else column.maximum


def _within(cell: ir.NumericColumn, column: Column) -> ir.BooleanColumn:
    low, high = _bounds(column)
    return (cell >= low) & (cell <= high)


def _elements_within(cell: ir.ArrayColumn, low: float, high: float) -> ir.BooleanColumn:
    outside = cell.filter(lambda element: (element < low) | ((element > high) & ~element.isnan()))
    return outside.length() == 0


def _span(column: Column) -> str:
    low, high = column.minimum, column.maximum
    return f"{'-inf' if low is None else f'{low:g}'}..{'inf' if high is None else f'{high:g}'}"


def column_of_term(term: str, contract: Validate) -> str:
    """Return the name of the column in a plausibility rule's term: for `values.mean`, the column is `values`."""
    return term if term in contract.columns else term.rsplit(".", 1)[0]
