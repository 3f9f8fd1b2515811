"""What describes one source: the figures that reports/quality.json shows and great-expectations checks."""

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
    """What describes one source.

    row: The row that great-expectations checks (`describe`).
    columns: Per column its share of missing cells, and min, max and mean where it is numeric.
    later: `rows` after the snapshot and the `last` one's time; empty for data without a time.
    """

    row: dict[str, Any]
    columns: dict[str, dict[str, float | None]]
    later: dict[str, Any]


def profile_source(
    source: SourceTable, valid: ir.Table, rows: int, data: Data, contract: Validate, snapshot: datetime
) -> Profile:
    """Describe a source by its `valid` rows, of which there are `rows`; its missing cells by all that it has."""
    later: dict[str, Any] = {}
    if data.time is not None:
        after = valid.filter(valid[data.time] > snapshot.astimezone(UTC).replace(tzinfo=None))
        later = after.aggregate(rows=after.count(), last=after[data.time].max()).to_pyarrow().to_pylist()[0]
    found = column_statistics(valid, contract)
    classes = count_classes(valid, data)
    null_shares = {column: round_figure(1 - there / source.rows) or 0.0 for column, there in source.cells.items()}
    row = profile_row(source.name, rows, count_groups(valid, data), classes, null_shares, found)
    columns = {
        column: {"null_share": null_shares[column], "min": None, "max": None, "mean": None}
        | {figure: value for figure, value in found.get(column, {}).items() if figure != "std"}
        for column in contract.columns
    }
    return Profile(row, columns, later)


def column_statistics(table: ir.Table, contract: Validate) -> dict[str, dict[str, float | None]]:
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
        found[name] = {figure: round_figure(row.get(f"{figure}_{i}")) for figure in ("min", "max", "mean", "std")}
    return found


def count_classes(table: ir.Table, data: Data) -> dict[str, int]:
    """Rows per value of the label column, every known class included."""
    rows = table.group_by(data.label).aggregate(n=table.count()).to_pyarrow().to_pylist()
    return dict.fromkeys(data.classes, 0) | {row[data.label]: int(row["n"]) for row in rows}


def count_groups(table: ir.Table, data: Data) -> int:
    return int(table[data.group].nunique().to_pyarrow().as_py())


def profile_row(
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
    row |= {f"share.{label}": round_figure(n / rows if rows else 0.0) for label, n in classes.items()}
    row |= {f"null_share.{name}": share for name, share in null_shares.items()}
    row |= {f"{figure}.{name}": value for name, some in kept.items() for figure, value in some.items()}
    return row
