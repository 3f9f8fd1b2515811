"""Handle missing values in a series with Ibis expressions, which give equal results on all engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stages.tables.rounding import round_figure

if TYPE_CHECKING:
    import ibis.expr.types as ir


def count_missing(table: ir.Table, columns: list[str]) -> dict[str, int]:
    """Return the number of missing values by column, only for columns that have missing values."""
    sums = {f"missing_{i}": table[name].isnull().sum() for i, name in enumerate(columns)}
    row = table.aggregate(**sums).to_pyarrow().to_pylist()[0]
    counts = {name: int(row[f"missing_{i}"] or 0) for i, name in enumerate(columns)}
    return {name: n for name, n in counts.items() if n}


def drop_incomplete(table: ir.Table, columns: list[str]) -> ir.Table:
    """Return the rows that have a value in all of `columns`."""
    return table.drop_null(columns, how="any") if columns else table


def fill_constant(table: ir.Table, train: ir.Table, columns: list[str], method: str) -> ir.Table:
    """Replace the missing values of each column by the column's mean or median in the training rows.

    Args:
        table: The rows of all splits.
        train: The rows of the training split.
        columns: Columns with missing values. A column without any value in `train` is left unchanged.
        method: "mean" or "median".
    """
    for name in columns:  # one column at a time, because an exact median needs the whole column in memory
        values = train[name].cast("float64")
        value = round_figure((values.mean() if method == "mean" else values.median()).to_pyarrow().as_py())
        if value is not None:
            table = table.mutate(**{name: table[name].cast("float64").fill_null(value)})
    return table


def interpolate(
    table: ir.Table,
    columns: list[str],
    group: list[str],
    time: str,
    micros: Callable[[ir.TimestampColumn], ir.IntegerColumn],
) -> ir.Table:
    """Replace missing values by linear interpolation in time between the neighbouring values of the same group.

    Missing values before the first value or after the last value of a group are replaced by the nearest value. A group
    without any value is left unchanged.

    NOTE: Engines give different results for "the last value that is not null" over a window, but the same results for a
    running count of values. So the count is used: rows with the same count have the same last preceding value.

    Args:
        table: The rows of all groups.
        columns: Columns with missing values.
        group: Columns that identify a group.
        time: Column that holds the time of each row.
        micros: The function that converts times to microseconds (Engine.microseconds).
    """
    import ibis

    names = table.columns
    for name in columns:
        table = table.mutate(
            _value=table[name].cast("float64"),
            _at=micros(table[time]).cast("float64"),
        )
        up_to_row = ibis.window(group_by=group, order_by=ibis.asc(table[time]), preceding=None, following=0)
        from_row = ibis.window(group_by=group, order_by=ibis.desc(table[time]), preceding=None, following=0)
        table = table.mutate(
            _known=table["_value"].notnull().ifelse(table["_at"], ibis.null("float64")),
            _before=table["_value"].count().over(up_to_row),
            _after=table["_value"].count().over(from_row),
        )
        previous, following = ibis.window(group_by=[*group, "_before"]), ibis.window(group_by=[*group, "_after"])
        table = table.mutate(
            _v0=table["_value"].max().over(previous),
            _t0=table["_known"].max().over(previous),
            _v1=table["_value"].max().over(following),
            _t1=table["_known"].max().over(following),
        )
        share = (table["_at"] - table["_t0"]) / (table["_t1"] - table["_t0"])
        line = table["_v0"] + (table["_v1"] - table["_v0"]) * share
        table = table.mutate(**{name: ibis.coalesce(table["_value"], line, table["_v0"], table["_v1"])}).select(names)
    return table
