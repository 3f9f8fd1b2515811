"""Convert columns to the types of the pipeline: group and label to text, time to UTC timestamps, channels to numbers.

Cells that cannot be converted are left unchanged. The `validate` stage reports them as violations of the data contract.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from stages.params.common import Data
from stages.tables.casting import cast_cells

ZONE = r"(Z|[+-]\d{2}(:?\d{2})?)$"
MAX_EXACT = 2.0**53  # above this number, a double cannot represent every whole number


def normalise(tables: Iterable[pa.Table], data: Data) -> Iterator[pa.Table]:
    """Yield each table with its group, label, time and channel columns converted to the types of the pipeline."""
    for table in tables:
        for index, name in enumerate(table.column_names):
            column = table.column(index)
            if name in (data.group, data.label):
                column = to_text(column)
            elif name == data.time:
                column = to_utc(column)
            elif name in data.channels and (pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
                column = column.cast(pa.float64(), safe=False)  # a whole number above 2^53 is rounded
            table = table.set_column(index, name, column)
        yield table


def to_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to text; NaN becomes null.

    Whole numbers are written without a decimal point, so that the labels 1.0 and 1 are the same class. Text is
    unchanged, so `007` and `7` remain different.
    """
    if pa.types.is_nested(column.type):
        return column
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), None, column)
        is_whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), MAX_EXACT))
        return pc.if_else(
            is_whole, pc.if_else(is_whole, column, None).cast(pa.int64()).cast(pa.string()), column.cast("string")
        )
    return column.cast(pa.string())


def to_utc(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to UTC timestamps in microseconds. A time without a time zone is read as UTC."""
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return _parse_time(column) if text else _cast_time(column)


def _cast_time(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        with contextlib.suppress(pa.ArrowInvalid):
            return column.cast(pa.timestamp("us"), safe=False)
    return column


def _parse_time(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column of text to timestamps.

    If at least one cell is not a time, the column remains text. The cells with times are then rewritten in the form
    `2026-01-01 00:00:00.000000`, and all other cells are left unchanged.
    """
    # digits below microseconds are removed: RFC 3339 allows any number of digits, but Arrow parses only those it stores
    text = pc.replace_substring_regex(pc.utf8_upper(column), r"(\.\d{6})\d+", r"\1").combine_chunks()
    # the end of a date without a time looks like a UTC offset (-01)
    zoned = pc.and_(pc.match_substring_regex(text, ZONE), pc.greater(pc.utf8_length(text), 10))
    with_zone = cast_cells(pc.if_else(zoned, text, None), pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
    times = pc.coalesce(with_zone, cast_cells(pc.if_else(zoned, None, text), pa.timestamp("us")))
    if times.null_count == column.null_count:
        return pa.chunked_array([times])
    return pc.coalesce(times.cast(pa.string()), column)
