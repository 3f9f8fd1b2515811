"""The arguments and results that are the same for all types of sources, and helpers that several types use."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.collect.sources.url_secrets import redact
from stages.core.errors import SourceError
from stages.core.progress import ProgressReporter
from stages.params.collect import Retry
from stages.params.common import Data

LEFT_OUT_NAMES = 20  # names that the provenance states for each reason
ARROW_ERRORS = (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError)  # raised by pa.array


@dataclass(frozen=True)
class Context:
    """The data that the `fetch` of every source receives in addition to the source's own parameters.

    name: Name of the source.
    data: The task's `data` parameters: the kind, columns and classes of the data.
    snapshot: Time of the snapshot, in UTC.
    retry: The retry settings: the number of attempts for a request, the pauses between them, and a time limit.
    scratch: Folder for this source's downloads. After a failed run it is kept, so that the next run can use it.
    progress: The reporter of this source's progress, in bytes.
    stop: An event that is set when the stage has finished or failed. Threads that copy or write data then stop.
    """

    name: str
    data: Data
    snapshot: datetime
    retry: Retry
    scratch: Path
    progress: ProgressReporter
    stop: threading.Event

    def error(self, problem: str, expected: str = "", remedy: str = "") -> SourceError:
        """Return an error whose message names this source.

        Args:
            problem: What was found. Secrets in URLs are removed from this text.
            expected: What is required instead.
            remedy: What the user should do.
        """
        return SourceError(f"source {self.name}", redact(problem), expected, remedy)


@dataclass(frozen=True)
class Origin:
    """The URL from which bytes were collected, the SHA-256 of these bytes in hex, and their number."""

    url: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class LeftOut:
    """The files or samples of a source that were not read for one reason: their number, and the first names."""

    reason: str
    count: int
    first: list[str]

    @classmethod
    def record(cls, reason: str, names: list[str]) -> LeftOut:
        """Return a record of the names. Names with characters that cannot be printed are written with escapes."""
        first = [name if name.isprintable() else ascii(name)[1:-1] for name in names[:LEFT_OUT_NAMES]]
        return cls(reason, len(names), first)

    def __str__(self) -> str:
        shown = ", ".join(self.first[:3])
        more = f" and {self.count - 3} more" if self.count > 3 else ""
        return f"{self.count} left out ({self.reason}): {shown}{more}"


@dataclass(frozen=True)
class FetchResult:
    """The data of one source: the origins of its bytes, its rows as an iterable of tables, and what was left out."""

    origins: list[Origin]
    tables: Iterable[pa.Table]
    left_out: list[LeftOut] = field(default_factory=list)


class JsonTableBuilder:
    """Builds one table from JSON objects. Each object becomes a row, and a field that an object lacks becomes a null.

    `digest` is the SHA-256 of all added objects, written as JSON lines with sorted keys.
    """

    def __init__(self, url: str, context: Context) -> None:
        self.url, self.context = redact(url), context
        self.tables: list[pa.Table] = []
        self.digest, self.bytes = hashlib.sha256(), 0

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Append JSON objects as rows. Raises SourceError if a table cannot store a field's name or values."""
        if not rows:
            return
        names = dict.fromkeys(name for row in rows for name in row)
        if invalid := next((name for name in names if has_surrogate(name)), None):
            raise self._refused(f"the name of the field {invalid!a} has an unpaired surrogate", "text in UTF-8")
        columns = {name: self._column(name, [row.get(name) for row in rows]) for name in names}
        self.tables.append(pa.table(columns))
        text = "".join(json.dumps(row, sort_keys=True, default=str) + "\n" for row in rows).encode()
        self.digest.update(text)
        self.bytes += len(text)

    def build(self, columns: dict[str, str] | None) -> FetchResult:
        """Return all rows as one table, with only the columns that `columns` names (see `select_columns`).

        Raises SourceError if there are no rows, a named column is missing, or a field has values of several types.
        """
        if not self.tables:
            raise self.context.error(f"{self.url}: no rows received", "at least one row", "correct the source")
        try:
            table = pa.concat_tables(self.tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise self._refused(f"a field holds values of several types ({error})", "one type per field") from None
        origin = Origin(self.url, self.digest.hexdigest(), self.bytes)
        return FetchResult([origin], [select_columns(table, columns, self.url, self.context)])

    def _column(self, name: str, values: list[Any]) -> pa.Array:
        try:
            return pa.array(values)
        except ARROW_ERRORS as error:
            reason = error
        if {type(value) for value in values} - {type(None)} == {
            int,
            float,
        }:  # pyarrow refuses a column that has both floats and integers of more than 53 bits
            return self._column(name, [None if value is None else float(value) for value in values])
        value_of_type: dict[str, Any] = {}  # the first value of each type
        for value in values:
            try:
                kind = pa.array([value]).type
            except ARROW_ERRORS as error:
                problem = f"field {name}: {ascii(value)[:60]} cannot be stored"
                raise self._refused(
                    f"{problem} ({error})", "numbers of at most 64 bits, text in UTF-8, lists of one type"
                ) from None
            if not pa.types.is_null(kind):
                value_of_type.setdefault(str(kind), value)
        examples = " and ".join(f"{ascii(value)[:60]} ({kind})" for kind, value in list(value_of_type.items())[:2])
        raise self._refused(f"field {name} holds values of several types: {examples or reason}", "one type per field")

    def _refused(self, problem: str, expected: str) -> SourceError:
        return self.context.error(f"{self.url}: {problem}", expected, "correct the source")


def has_surrogate(text: str) -> bool:
    """Check if the text contains an unpaired surrogate, which JSON and file names allow but UTF-8 does not."""
    return bool(re.search("[\ud800-\udfff]", text))


def select_columns(table: pa.Table, columns: dict[str, str] | None, where: str, context: Context) -> pa.Table:
    """Return the table with only the configured columns, under their configured names.

    Args:
        table: The table as it was read.
        columns: For each column that is kept, its current name (the key) and its new name. None keeps all columns.
        where: The file or URL of the table, for error messages.
        context: Provides the source's name for error messages.

    Raises:
        SourceError: A configured column is missing, or a column name occurs more than once.
    """
    duplicates = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if duplicates:
        problem = f"{where}: column {', '.join(duplicates)} is a duplicate"
        raise context.error(problem, "different column names", "rename one of these columns")
    if columns is None:
        return table
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise context.error(
            f"{where}: column {', '.join(missing)} is missing; the columns are {', '.join(table.column_names)}",
            "every column that `columns:` names",
            "correct `columns:`, the separator or the file",
        )
    return table.select(list(columns)).rename_columns(list(columns.values()))


def value_at(value: Any, dotted: str) -> Any:
    """Return the value at a dotted path inside a JSON value; None if the path does not exist."""
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
