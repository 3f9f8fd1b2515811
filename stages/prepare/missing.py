"""What becomes of missing values in a series, as Ibis expressions that give equal results on every engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stages.tables.rounding import round_figure

if TYPE_CHECKING:
    import ibis.expr.types as ir


def count_missing(table: ir.Table, columns: list[str]) -> dict[str, int]:
    """Missing values per column; only the columns that have any."""
    sums = {f"missing_{i}": table[name].isnull().sum() for i, name in enumerate(columns)}
    row = table.aggregate(**sums).to_pyarrow().to_pylist()[0]
    found = {name: int(row[f"missing_{i}"] or 0) for i, name in enumerate(columns)}
    return {name: n for name, n in found.items() if n}


def drop_incomplete(table: ir.Table, columns: list[str]) -> ir.Table:
    """The rows in which none of `columns` is missing."""
    return table.drop_null(columns, how="any") if columns else table


def fill_constant(table: ir.Table, train: ir.Table, columns: list[str], method: str) -> ir.Table:
    """Missing values become the mean or the median of the training rows. A column without any keeps its holes."""
    for name in columns:  # one by one: an exact median holds its column in memory
        known = train[name].cast("float64")
        value = round_figure((known.mean() if method == "mean" else known.median()).to_pyarrow().as_py())
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
    """Missing values lie on the line, in time, between their neighbours in the group; at its ends they are the
    nearest one's. A group without any value keeps its holes. `micros` is the engine's own (Engine.microseconds).

    NOTE: "the last value that is not null" over a window does not mean the same on all engines; a running count
    of values does. Rows with one count share the value that was seen last.
    """
    import ibis

    wanted = table.columns
    for name in columns:
        table = table.mutate(
            _value=table[name].cast("float64"),
            _at=micros(table[time]).cast("float64"),
        )
        upto = ibis.window(group_by=group, order_by=ibis.asc(table[time]), preceding=None, following=0)
        onwards = ibis.window(group_by=group, order_by=ibis.desc(table[time]), preceding=None, following=0)
        table = table.mutate(
            _known=table["_value"].notnull().ifelse(table["_at"], ibis.null("float64")),
            _before=table["_value"].count().over(upto),
            _after=table["_value"].count().over(onwards),
        )
        left, right = ibis.window(group_by=[*group, "_before"]), ibis.window(group_by=[*group, "_after"])
        table = table.mutate(
            _v0=table["_value"].max().over(left),
            _t0=table["_known"].max().over(left),
            _v1=table["_value"].max().over(right),
            _t1=table["_known"].max().over(right),
        )
        share = (table["_at"] - table["_t0"]) / (table["_t1"] - table["_t0"])
        line = table["_v0"] + (table["_v1"] - table["_v0"]) * share
        table = table.mutate(**{name: ibis.coalesce(table["_value"], line, table["_v0"], table["_v1"])}).select(wanted)
    return table
