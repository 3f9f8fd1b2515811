"""One row that describes one source: what reports/quality.json shows and great-expectations checks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stages.rules import complete
from stages.tables import settled

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.params.base import Data
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
    wanted = {}
    for i, name in enumerate(names):
        cell = table[name]
        if contract.columns[name].type == "values":
            squares = cell.map(lambda x: x.cast("float64") * x.cast("float64")).sums().sum()
            total, elements = cell.map(lambda x: x.cast("float64")).sums().sum(), cell.length().sum()
            low, high = cell.mins().min(), cell.maxs().max()
        else:
            number = cell.cast("float64")
            squares, total, elements = (number * number).sum(), number.sum(), number.count()
            low, high = number.min(), number.max()
        parts = {"squares": squares, "total": total, "elements": elements, "low": low, "high": high}
        wanted |= {f"{part}_{i}": value for part, value in parts.items()}
    row = table.aggregate(**wanted).to_pyarrow().to_pylist()[0]
    found = {}
    for i, name in enumerate(names):
        elements = row[f"elements_{i}"] or 0
        mean = row[f"total_{i}"] / elements if elements else math.nan
        variance = max(row[f"squares_{i}"] / elements - mean * mean, 0.0) if elements else math.nan
        found[name] = {
            "min": settled(row[f"low_{i}"]),
            "max": settled(row[f"high_{i}"]),
            "mean": settled(mean),
            "std": settled(math.sqrt(variance)),
        }
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
