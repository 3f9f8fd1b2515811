"""What a source hands over, and what it is given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa

from stages.errors import SourceError
from stages.params.base import Data
from stages.params.collect import Retry


@dataclass(frozen=True)
class Context:
    """What every source may need. `scratch` is the source's own folder for downloads; it outlives a failed run."""

    name: str
    data: Data
    snapshot: datetime
    seed: int
    retry: Retry
    scratch: Path

    def error(self, found: str, expected: str = "", remedy: str = "") -> SourceError:
        return SourceError(f"source {self.name}", found, expected, remedy)


@dataclass(frozen=True)
class Origin:
    """Bytes as they came: where from, how many, their SHA-256."""

    url: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Raw:
    """What came, and its rows as tables that are read one after the other."""

    origins: list[Origin]
    tables: Iterable[pa.Table]


def public(url: str) -> str:
    """The URL without a user's name and password, fit for provenance and messages."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def of_rows(rows: list[dict[str, Any]], url: str, columns: dict[str, str] | None, context: Context) -> Raw:
    """JSON objects as one table; the digest is that of their JSON lines."""
    if not rows:
        raise context.error(f"{public(url)}: no rows came", "at least one", "mend the source")
    text = "".join(json.dumps(row, sort_keys=True, default=str) + "\n" for row in rows).encode()
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise context.error(
            f"{public(url)}: a field holds values of several types ({error})", "one type per field", "mend the source"
        ) from None
    origin = Origin(public(url), hashlib.sha256(text).hexdigest(), len(text))
    return Raw([origin], [choose(table, columns, public(url), context)])


def choose(table: pa.Table, columns: dict[str, str] | None, where: str, context: Context) -> pa.Table:
    """The configured columns under their names here; all of them where none are configured. Raises SourceError."""
    if columns is None:
        return table
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise context.error(
            f"{where}: column {', '.join(missing)} is missing; there are {', '.join(table.column_names)}",
            "the columns of `columns:`",
            "mend the names (another separator?), or the file",
        )
    return table.select(list(columns)).rename_columns(list(columns.values()))


def at(value: Any, dotted: str) -> Any:
    """The value at a dotted path inside JSON; None where the path ends early."""
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def batches(tables: Iterable[pa.Table], data: Data) -> Iterator[pa.Table]:
    """The tables with group and label as text, time as a UTC timestamp and channels as numbers, where they can be.

    What cannot be read so stays as it is: the data contract says what is wrong with it.
    """
    for table in tables:
        for index, name in enumerate(table.column_names):
            column = table.column(index)
            if name in (data.group, data.label):
                column = as_text(column)
            elif name == data.time:
                column = as_time(column)
            elif name in data.channels and (pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
                column = column.cast(pa.float64())
            elif pa.types.is_null(column.type):
                column = column.cast(pa.string())
            table = table.set_column(index, name, column)
        yield table


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers without a point: a label 1.0 and a label 1 are the same class."""
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type) and pc.all(pc.equal(pc.floor(column), column)).as_py() is not False:
        column = column.cast(pa.int64())
    return column.cast(pa.string())


def as_time(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        if pa.types.is_string(column.type):
            zoned = column.to_pylist()[:1] and str(column[0].as_py()).endswith("Z")
            column = column.cast(pa.timestamp("us", "UTC" if zoned else None))
        if pa.types.is_timestamp(column.type):
            return column.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        pass
    return column
