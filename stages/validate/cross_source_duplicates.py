"""Detect rows that occur in more than one source, and rows with which another source disagrees.

Without this check, one copy of such a row could be in the training split and another copy in the test split.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from stages.validate.flagged_rows import FlaggedRows
from stages.validate.row_rules import (
    CONFLICT_COLUMN,
    DUPLICATE_COLUMN,
    Rule,
    compared_columns,
    conflict_reason,
    key_columns,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import ibis.expr.types as ir

    from stages.params.common import Data
    from stages.tables.engine import Engine


def duplicate_rule(data: Data) -> Rule:
    """Return the rule that is violated by each row that `mark_duplicates` has marked."""
    key = (*key_columns(data), *compared_columns(data, ()))
    compared = ", ".join(key) if data.kind != "series" else "the whole row"
    return Rule(
        "consistency", key, f"copy of a row of another source ({compared})", lambda table: ~table[DUPLICATE_COLUMN]
    )


def conflict_rule(data: Data) -> Rule:
    """Return the rule that is violated by each row that `flag_conflicts` flags."""
    reason = f"conflict with a row of another source ({conflict_reason(data)})"
    return Rule("consistency", tuple(key_columns(data)), reason, lambda table: ~table[CONFLICT_COLUMN])


def mark_duplicates(
    engine: Engine, table: ir.Table, earlier: list[ir.Table], data: Data, columns: list[str]
) -> ir.Table:
    """Mark each row of `table` that also occurs in one of the `earlier` tables.

    For images and audio, the values and the label are compared. For series, whole rows are compared.

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
    names = [*key_columns(data), *compared_columns(data, columns)]
    hash_key = _hash_key(data)
    before = _with_hash(engine, _union(earlier, names), data)
    # Compare hashes first, so that only values with equal hashes are stored and compared.
    candidates = engine.materialise(
        _with_hash(engine, table, data).select(hash_key).distinct().semi_join(before.select(hash_key), hash_key)
    )
    shared = engine.materialise(before.semi_join(candidates, hash_key).select(names).distinct())
    return _mark(table, shared, DUPLICATE_COLUMN)


def flag_conflicts(engine: Engine, sources: list[FlaggedRows], data: Data) -> list[FlaggedRows]:
    """Flag the rows with which a valid row of another source disagrees.

    Two valid rows of different sources with the same key are not equal, because one of them would be a duplicate. So it
    is unknown which one is right, and both are flagged.

    Args:
        engine: The table engine (DuckDB or Spark) that runs the queries.
        sources: The rows of all sources, in which the duplicates (`mark_duplicates`) are flagged.
        data: The task's `data` parameters.

    Returns:
        The rows of all sources, in the same order.
    """
    import ibis

    key, hash_key = key_columns(data), _hash_key(data)
    rows = _with_hash(engine, _union([source.valid_rows() for source in sources], key), data)

    def repeated(table: ir.Table, columns: list[str]) -> ir.Table:
        return engine.materialise(
            table.group_by(columns).aggregate(occurrences=table.count()).filter(ibis._.occurrences > 1).select(columns)
        )

    conflicts = repeated(rows.semi_join(repeated(rows, hash_key), hash_key), key)
    if not conflicts.count().to_pyarrow().as_py():
        return sources
    rule = conflict_rule(data)
    return [source.with_rule(_mark(source.table, conflicts, CONFLICT_COLUMN), rule) for source in sources]


def _hash_key(data: Data) -> list[str]:
    """Return the columns that are compared first; the values of an image or a clip are represented by their hash."""
    return ["code"] if data.kind != "series" else key_columns(data)


def _with_hash(engine: Engine, rows: ir.Table, data: Data) -> ir.Table:
    return rows.mutate(code=engine.hash_cells(rows[data.columns[0]])) if data.kind != "series" else rows


def _union(tables: Iterable[ir.Table], columns: list[str]) -> ir.Table:
    return reduce(lambda a, b: a.union(b), [table.select(columns) for table in tables])


def _mark(table: ir.Table, rows: ir.Table, name: str) -> ir.Table:
    """Add a boolean column that is True for each row of `table` that equals one of `rows` in all columns of `rows`."""
    columns = rows.columns
    other = rows.select(**{f"other_{i}": rows[column] for i, column in enumerate(columns)}, marked=True)
    joined = table.left_join(other, [table[c].identical_to(other[f"other_{i}"]) for i, c in enumerate(columns)])
    return joined.select(*[joined[c] for c in table.columns], joined["marked"].fill_null(False).name(name))
