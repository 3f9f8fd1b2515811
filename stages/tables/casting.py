"""Cast a column cell by cell if it cannot be cast as a whole, for example because of one word among numbers."""

from __future__ import annotations

import pyarrow as pa


def cast_cells(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast every cell of a column to the type `kind`. A cell that cannot be cast becomes null.

    If a part of the column cannot be cast, the two halves of this part are cast separately. So a few invalid cells cost
    little time.
    """
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        if len(column) == 1:
            return pa.nulls(1, kind)
    middle = len(column) // 2
    return pa.concat_arrays([cast_cells(column[:middle], kind), cast_cells(column[middle:], kind)])
