"""Cast a column cell by cell if it cannot be cast as a whole, for example because of one word among numbers."""

from __future__ import annotations

import pyarrow as pa


def cast_cells(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast every cell of a column to the type `kind`. A cell that cannot be cast becomes null.

    The column is cast as a whole if possible. If that fails, it is split in the middle, and this function is called for
    each part. A few invalid cells therefore cost little time.
    """
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        if len(column) == 1:
            return pa.nulls(1, kind)
    middle = len(column) // 2
    return pa.concat_arrays([cast_cells(column[:middle], kind), cast_cells(column[middle:], kind)])
