"""Detect rows that occur in more than one source.

Without this check, one copy of such a row could be in the training split and another copy in the test split.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from stages.validate.row_rules import DUPLICATE_COLUMN, Rule

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.params.common import Data
    from stages.tables.engine import Engine


def duplicate_rule(data: Data) -> Rule:
    """Return the rule that is violated by each row that `mark_duplicates` has marked."""
    key = tuple(data.columns) if data.kind != "series" else (data.group, str(data.time))
    compared = "values" if data.kind != "series" else "the whole row"
    return Rule(
        "consistency", key, f"copy of a row of another source ({compared})", lambda table: ~table[DUPLICATE_COLUMN]
    )


def mark_duplicates(
    engine: Engine, table: ir.Table, earlier: list[ir.Table], data: Data, columns: list[str]
) -> ir.Table:
    """Mark each row of `table` that also occurs in one of the `earlier` tables.

    For images and audio, the values are compared. For series, whole rows are compared, because two sources can have
    different rows for the same machine and time.

    Args:
        engine: The table engine (DuckDB or Spark) that runs the queries.
        table: The canonical table (`contract.SourceTable`) of the source that is checked now.
        earlier: For each source that was checked earlier, a table of its valid rows.
        data: The task's `data` parameters.
        columns: Names of the contract's columns.

    Returns:
        `table` with the additional boolean column DUPLICATE_COLUMN.
    """
    import ibis

    if not earlier:
        return table.mutate(**{DUPLICATE_COLUMN: ibis.literal(False)})
    key = data.columns if data.kind != "series" else columns
    hash_key = ["code"] if data.kind != "series" else [data.group, str(data.time)]

    def with_hash(rows: ir.Table) -> ir.Table:
        return rows.mutate(code=engine.hash_cells(rows[data.columns[0]])) if hash_key == ["code"] else rows

    before = with_hash(reduce(lambda a, b: a.union(b), [t.select(key) for t in earlier]))
    # Compare hashes first, so that only values with equal hashes are stored and compared.
    candidates = engine.materialise(
        with_hash(table).select(hash_key).distinct().semi_join(before.select(hash_key), hash_key)
    )
    shared = before.semi_join(candidates, hash_key).select(key).distinct()
    other = engine.materialise(
        shared.select(**{f"other_{i}": shared[name] for i, name in enumerate(key)}, **{DUPLICATE_COLUMN: True})
    )
    equal = [table[name].identical_to(other[f"other_{i}"]) for i, name in enumerate(key)]
    joined = table.left_join(other, equal)
    return joined.select(
        *[joined[name] for name in table.columns], joined[DUPLICATE_COLUMN].fill_null(False).name(DUPLICATE_COLUMN)
    )
