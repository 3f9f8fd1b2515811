"""Define the sort order of rows and the class index of each label, for all modules of the stage `prepare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.core.errors import ContractError

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.params import Params


def sort_order(table: ir.Table, params: Params) -> list[str]:
    """Return the columns by which the table must be sorted, so that every engine returns the rows in the same order.

    A series is sorted by group, source and time. A table of images or audio clips is sorted by all of its columns.
    """
    data = params.data
    first = [data.group, "source"] + ([data.time] if data.time is not None else [])
    if data.time is not None:
        return first  # the data contract requires that these columns together are unique
    return first + [name for name in table.columns if name not in [*first, *data.columns]] + data.columns


def class_index(labels: pa.Array, params: Params) -> np.ndarray:
    """Return the index of each label in data.classes, int16 [N]. Raises ContractError for an unknown label."""
    indices = pc.index_in(labels, value_set=pa.array(list(params.data.classes), pa.string()))
    if indices.null_count:
        unknown = pc.unique(labels.filter(pc.is_null(indices))).to_pylist()
        raise ContractError(
            f"column {params.data.label}",
            f"found the label(s) {unknown}",
            "labels that are keys of data.classes",
            "run python -m stages.validate again",
        )
    index: np.ndarray = indices.to_numpy().astype(np.int16)
    return index
