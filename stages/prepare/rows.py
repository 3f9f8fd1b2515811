"""The order of a table's rows and the index of their class: the same wherever rows are read."""

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
    """Columns that order a table: group, source, time; then all others, so that no two orders are possible."""
    data = params.data
    first = [data.group, "source"] + ([data.time] if data.time is not None else [])
    if data.time is not None:
        return first  # unique, by the contract
    return first + [name for name in table.columns if name not in [*first, *data.columns]] + data.columns


def class_index(labels: pa.Array, params: Params) -> np.ndarray:
    """int16 index into data.classes."""
    found = pc.index_in(labels, value_set=pa.array(list(params.data.classes), pa.string()))
    if found.null_count:
        unknown = pc.unique(labels.filter(pc.is_null(found))).to_pylist()
        raise ContractError(
            f"column {params.data.label}", f"found the label(s) {unknown}", "keys of data.classes", "run validate again"
        )
    index: np.ndarray = found.to_numpy().astype(np.int16)
    return index
