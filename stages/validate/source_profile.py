"""Compute the statistics of a source that are written to reports/quality.json and checked by great-expectations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stages.tables.rounding import round_figure

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.params.common import Data
    from stages.params.validate import Validate
    from stages.validate.contract import SourceTable


@dataclass(frozen=True)
class Profile:
    """The statistics of one source.

    row: The source's row in the table that great-expectations checks (`profile_row`).
    columns: For each column, the fraction of missing cells; for numeric columns also the minimum, maximum and mean.
    later: A dictionary about the rows whose time is after the snapshot: `rows` is their number, and `last` is the
        latest time. The dictionary is empty for data without a time column.
    """

    row: dict[str, Any]
    columns: dict[str, dict[str, float | None]]
    later: dict[str, Any]


def profile_source(
    source: SourceTable, valid: ir.Table, rows: int, data: Data, contract: Validate, snapshot: datetime
) -> Profile:
    """Compute the statistics of a source.

    Args:
        source: The canonical table of the source. Missing cells are counted in all of its rows.
        valid: The rows of the source that do not violate any rule. All other statistics are computed from these rows.
        rows: Number of valid rows.
        data: The task's `data` parameters.
        contract: The data contract.
        snapshot: Time of the snapshot.
    """
    later: dict[str, Any] = {}
    if data.time is not None:
        after = valid.filter(valid[data.time] > snapshot.astimezone(UTC).replace(tzinfo=None))
        later = after.aggregate(rows=after.count(), last=after[data.time].max()).to_pyarrow().to_pylist()[0]
    statistics = column_statistics(valid, contract)
    classes = count_classes(valid, data)
    null_shares = {column: round_figure(1 - present / source.rows) or 0.0 for column, present in source.cells.items()}
    row = profile_row(source.name, rows, count_groups(valid, data), classes, null_shares, statistics)
    columns = {
        column: {"null_share": null_shares[column], "min": None, "max": None, "mean": None}
        | {figure: value for figure, value in statistics.get(column, {}).items() if figure != "std"}
        for column in contract.columns
    }
    return Profile(row, columns, later)


def column_statistics(table: ir.Table, contract: Validate) -> dict[str, dict[str, float | None]]:
    """Return the minimum, maximum, mean and standard deviation of each numeric column.

    For a column of type `values`, they are computed over the elements of all its lists.
    """
    names = [n for n, c in contract.columns.items() if c.type in ("float", "integer", "values")]
    if not names:
        return {}
    aggregates: dict[str, ir.Scalar] = {}
    for i, name in enumerate(names):
        cell = table[name]
        if contract.columns[name].type == "values":
            wide = cell.map(lambda x: x.cast("float64"))
            aggregates |= {
                f"elements_{i}": cell.length().sum(),
                f"total_{i}": wide.sums().sum(),
                f"squares_{i}": wide.map(lambda x: x * x).sums().sum(),
            }
            cell, high = cell.mins(), cell.maxs()
        else:
            cell = high = cell.cast("float64")
            aggregates |= {f"mean_{i}": cell.mean(), f"std_{i}": cell.std(how="pop")}
        aggregates |= {f"min_{i}": cell.min(), f"max_{i}": high.max()}
    row = table.aggregate(**aggregates).to_pyarrow().to_pylist()[0]
    statistics = {}
    for i, name in enumerate(names):
        if row.get(f"elements_{i}"):
            mean = row[f"total_{i}"] / row[f"elements_{i}"]
            row[f"mean_{i}"] = mean
            row[f"std_{i}"] = math.sqrt(max(row[f"squares_{i}"] / row[f"elements_{i}"] - mean * mean, 0.0))
        statistics[name] = {figure: round_figure(row.get(f"{figure}_{i}")) for figure in ("min", "max", "mean", "std")}
    return statistics


def count_classes(table: ir.Table, data: Data) -> dict[str, int]:
    """Return the number of rows for each value of the label column; a class without rows has the number 0."""
    rows = table.group_by(data.label).aggregate(n=table.count()).to_pyarrow().to_pylist()
    return dict.fromkeys(data.classes, 0) | {row[data.label]: int(row["n"]) for row in rows}


def count_groups(table: ir.Table, data: Data) -> int:
    """Return the number of distinct groups in a table."""
    return int(table[data.group].nunique().to_pyarrow().as_py())


def profile_row(
    source: str,
    rows: int,
    groups: int,
    classes: dict[str, int],
    null_shares: dict[str, float],
    statistics: dict[str, Any],
) -> dict[str, Any]:
    """Return the row of one source in the profile, the table that great-expectations checks.

    Args:
        source: Name of the source.
        rows: Number of valid rows.
        groups: Number of groups.
        classes: Number of valid rows for each class. In the returned row, `share.<class>` is the fraction of
            a class, and `classes` is the number of classes that have at least one row.
        null_shares: For each column, the fraction of missing cells in all collected rows. It is
            `null_share.<column>` in the returned row.
        statistics: Statistics of each numeric column in the valid rows. They are `min.<column>`, `max.<column>`,
            `mean.<column>` and `std.<column>` in the returned row.
    """
    row: dict[str, Any] = {"source": source, "rows": rows, "groups": groups}
    row["classes"] = sum(1 for n in classes.values() if n)
    row |= {f"share.{label}": round_figure(n / rows if rows else 0.0) for label, n in classes.items()}
    row |= {f"null_share.{name}": share for name, share in null_shares.items()}
    row |= {f"{figure}.{name}": value for name, figures in statistics.items() for figure, value in figures.items()}
    return row
