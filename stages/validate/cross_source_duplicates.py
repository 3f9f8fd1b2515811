"""Rows that two sources hold: a copy under another name would be trained on and then tested on."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from stages.validate.row_rules import DUPLICATE_COLUMN, Rule

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.params.common import Data
    from stages.tables.engine import Engine


def duplicate_rule(data: Data) -> Rule:
    """What every row of a table from `mark` must hold."""
    key = tuple(data.columns) if data.kind != "series" else (data.group, str(data.time))
    what = "values" if data.kind != "series" else "the whole row"
    return Rule("consistency", key, f"copy of a row of another source ({what})", lambda table: ~table[DUPLICATE_COLUMN])


def mark_duplicates(
    engine: Engine, table: ir.Table, earlier: list[ir.Table], data: Data, columns: list[str]
) -> ir.Table:
    """A canonical table with the column COPIED: whether one of the `earlier` tables has the row too.

    Of images and audio the values are what is compared; of a series the whole row, which is `columns`: one machine may
    well have two sources that tell different things of one instant.
    """
    import ibis

    if not earlier:
        return table.mutate(**{DUPLICATE_COLUMN: ibis.literal(False)})
    key = data.columns if data.kind != "series" else columns
    near = ["code"] if data.kind != "series" else [data.group, str(data.time)]

    def coded(some: ir.Table) -> ir.Table:
        return some.mutate(code=engine.hash_cells(some[data.columns[0]])) if near == ["code"] else some

    before = coded(reduce(lambda a, b: a.union(b), [t.select(key) for t in earlier]))
    # Codes first: values themselves are only compared, and only kept, where the codes are equal.
    alike = engine.materialise(coded(table).select(near).distinct().semi_join(before.select(near), near))
    twice = before.semi_join(alike, near).select(key).distinct()
    other = engine.materialise(
        twice.select(**{f"other_{i}": twice[name] for i, name in enumerate(key)}, **{DUPLICATE_COLUMN: True})
    )
    equal = [table[name].identical_to(other[f"other_{i}"]) for i, name in enumerate(key)]
    joined = table.left_join(other, equal)
    return joined.select(
        *[joined[name] for name in table.columns], joined[DUPLICATE_COLUMN].fill_null(False).name(DUPLICATE_COLUMN)
    )
