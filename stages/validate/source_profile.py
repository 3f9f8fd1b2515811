"""Statistics of one source, which reports/quality.json shows and great-expectations checks."""

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
    """Statistics of one source.

    row: The row that great-expectations checks (`profile_row`).
    columns: Fraction of missing cells of each column, and min, max and mean of numeric columns.
    later: `rows` is the number of rows with a time after the snapshot, and `last` their latest time. Empty for data
        without a time column.
    """

    row: dict[str, Any]
    columns: dict[str, dict[str, float | None]]
    later: dict[str, Any]


def profile_source(
    source: SourceTable, valid: ir.Table, rows: int, data: Data, contract: Validate, snapshot: datetime
) -> Profile:
    """Compute the statistics of a source.

    Args:
        source: The source. Missing cells are counted in all its rows.
        valid: The rows that do not violate a rule. All other statistics are computed from these rows.
        rows: Number of valid rows.
        data: The block `data` of the parameters.
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
    """Return min, max, mean and std of each numeric column, and of all elements of each `values` column."""
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
    """Return the number of rows per value of the label column, including classes without rows."""
    rows = table.group_by(data.label).aggregate(n=table.count()).to_pyarrow().to_pylist()
    return dict.fromkeys(data.classes, 0) | {row[data.label]: int(row["n"]) for row in rows}


def count_groups(table: ir.Table, data: Data) -> int:
    """Return the number of groups."""
    return int(table[data.group].nunique().to_pyarrow().as_py())


def profile_row(
    source: str,
    rows: int,
    groups: int,
    classes: dict[str, int],
    null_shares: dict[str, float],
    statistics: dict[str, Any],
) -> dict[str, Any]:
    """Return the row of the profile that great-expectations checks.

    Args:
        source: Name of the source.
        rows: Number of valid rows.
        groups: Number of groups.
        classes: Number of rows per class. The profile has the fractions `share.<class>`, and in `classes` the number of
            classes that have rows.
        null_shares: Fraction of missing cells per column among all collected rows. The profile has them as
            `null_share.<column>`.
        statistics: Statistics of each column of the valid rows. The profile has them as `min.<column>`, `max.<column>`
            and so on.
    """
    row: dict[str, Any] = {"source": source, "rows": rows, "groups": groups}
    row["classes"] = sum(1 for n in classes.values() if n)
    row |= {f"share.{label}": round_figure(n / rows if rows else 0.0) for label, n in classes.items()}
    row |= {f"null_share.{name}": share for name, share in null_shares.items()}
    row |= {f"{figure}.{name}": value for name, figures in statistics.items() for figure, value in figures.items()}
    return row
