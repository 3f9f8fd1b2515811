"""One row that describes one source: what reports/quality.json shows and great-expectations checks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stages.tables.engine import settled
from stages.validate.row_rules import complete

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.params.common import Data
    from stages.params.validate import Validate


def count_cells(table: ir.Table, contract: Validate) -> tuple[int, dict[str, int]]:
    """Rows, and per column the cells that are there."""
    names = list(contract.columns)
    sums = {f"there_{i}": complete(table, name).sum() for i, name in enumerate(names)}
    row = table.aggregate(rows=table.count(), **sums).to_pyarrow().to_pylist()[0]
    return row["rows"], {name: int(row[f"there_{i}"] or 0) for i, name in enumerate(names)}


def figures(table: ir.Table, contract: Validate) -> dict[str, dict[str, float | None]]:
    """Per numeric column: min, max, mean, std over the rows; of a `values` column over all elements."""
    names = [n for n, c in contract.columns.items() if c.type in ("float", "integer", "values")]
    if not names:
        return {}
    wanted: dict[str, ir.Scalar] = {}
    for i, name in enumerate(names):
        cell = table[name]
        if contract.columns[name].type == "values":
            wide = cell.map(lambda x: x.cast("float64"))
            wanted |= {
                f"elements_{i}": cell.length().sum(),
                f"total_{i}": wide.sums().sum(),
                f"squares_{i}": wide.map(lambda x: x * x).sums().sum(),
            }
            cell, high = cell.mins(), cell.maxs()
        else:
            cell = high = cell.cast("float64")
            wanted |= {f"mean_{i}": cell.mean(), f"std_{i}": cell.std(how="pop")}
        wanted |= {f"min_{i}": cell.min(), f"max_{i}": high.max()}
    row = table.aggregate(**wanted).to_pyarrow().to_pylist()[0]
    found = {}
    for i, name in enumerate(names):
        if row.get(f"elements_{i}"):
            mean = row[f"total_{i}"] / row[f"elements_{i}"]
            row[f"mean_{i}"] = mean
            row[f"std_{i}"] = math.sqrt(max(row[f"squares_{i}"] / row[f"elements_{i}"] - mean * mean, 0.0))
        found[name] = {figure: settled(row.get(f"{figure}_{i}")) for figure in ("min", "max", "mean", "std")}
    return found


def class_counts(table: ir.Table, data: Data) -> dict[str, int]:
    """Rows per value of the label column, every known class included."""
    rows = table.group_by(data.label).aggregate(n=table.count()).to_pyarrow().to_pylist()
    return dict.fromkeys(data.classes, 0) | {row[data.label]: int(row["n"]) for row in rows}


def group_count(table: ir.Table, data: Data) -> int:
    return int(table[data.group].nunique().to_pyarrow().as_py())


def describe(
    source: str,
    rows: int,
    groups: int,
    classes: dict[str, int],
    null_shares: dict[str, float],
    kept: dict[str, Any],
) -> dict[str, Any]:
    """The profile's row: rows, groups, classes seen, share.<class>, null_share.<column>, min|max|mean|std.<column>.

    Null shares are of the rows as collected; all else is of the rows that were kept.
    """
    row: dict[str, Any] = {"source": source, "rows": rows, "groups": groups}
    row["classes"] = sum(1 for n in classes.values() if n)
    row |= {f"share.{label}": settled(n / rows if rows else 0.0) for label, n in classes.items()}
    row |= {f"null_share.{name}": share for name, share in null_shares.items()}
    row |= {f"{figure}.{name}": value for name, some in kept.items() for figure, value in some.items()}
    return row
