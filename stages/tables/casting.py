"""Cells of a column one by one, where the column as a whole cannot be read: one word among numbers makes it text."""

from __future__ import annotations

import pyarrow as pa


def cast_cells(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Every cell that can be cast to `kind`, null where one cannot. What fails is halved: few bad cells cost little."""
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        if len(column) == 1:
            return pa.nulls(1, kind)
    middle = len(column) // 2
    return pa.concat_arrays([cast_cells(column[:middle], kind), cast_cells(column[middle:], kind)])
