"""What a source hands over, and what it is given."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.core.errors import SourceError
from stages.core.progress import ProgressReporter
from stages.params.collect import Retry
from stages.params.common import Data

ARROW_ERRORS = (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError)  # what pa.array raises
URL_USER = re.compile(r"(?<=://)[^/@\s]*@")
URL_SECRET = re.compile(
    r"(?i)([?&][^=&\s]*(?:auth|code|credential|key|passw|secret|sig|token)[^=&\s]*=)[^&\s'\")]*?(?=[:;,.]?(?:[&\s'\")]|$))"
)


@dataclass(frozen=True)
class Context:
    """What every source may need. `scratch` is the source's own folder for downloads; it outlives a failed run.

    `stop` is set when the run ends early: a thread that copies or writes looks at it and gives up.
    """

    name: str
    data: Data
    snapshot: datetime
    retry: Retry
    scratch: Path
    progress: ProgressReporter
    stop: threading.Event

    def error(self, found: str, expected: str = "", remedy: str = "") -> SourceError:
        """No secret of a URL gets into the message, whoever wrote it."""
        return SourceError(f"source {self.name}", redact(found), expected, remedy)


@dataclass(frozen=True)
class Origin:
    """Bytes as they came: where from, how many, their SHA-256."""

    url: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class FetchResult:
    """What came, and its rows as tables that are read one after the other."""

    origins: list[Origin]
    tables: Iterable[pa.Table]


def redact(text: str) -> str:
    """The text with the user, the password and the secret parameters of its URLs taken out, fit to be kept."""
    return URL_SECRET.sub(r"\1***", URL_USER.sub("", text))


class JsonTableBuilder:
    """JSON objects that become one table, bunch by bunch; an object without a field has no value there.

    The digest is that of the objects as JSON lines with sorted keys.
    """

    def __init__(self, url: str, context: Context) -> None:
        self.url, self.context = redact(url), context
        self.tables: list[pa.Table] = []
        self.digest, self.bytes = hashlib.sha256(), 0

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Raises SourceError where a field holds values that are no column."""
        if not rows:
            return
        names = dict.fromkeys(name for row in rows for name in row)
        if wrong := next((name for name in names if has_surrogate(name)), None):
            raise self._refused(f"the field {wrong!a} has half a character in its name", "text in UTF-8")
        columns = {name: self._column(name, [row.get(name) for row in rows]) for name in names}
        self.tables.append(pa.table(columns))
        text = "".join(json.dumps(row, sort_keys=True, default=str) + "\n" for row in rows).encode()
        self.digest.update(text)
        self.bytes += len(text)

    def build(self, columns: dict[str, str] | None) -> FetchResult:
        """All of it. Raises SourceError where nothing came, or a configured column did not."""
        if not self.tables:
            raise self.context.error(f"{self.url}: no rows came", "at least one", "mend the source")
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
            why = error
        if {type(value) for value in values} - {type(None)} == {int, float}:  # an integer of more than 53 bits
            return self._column(name, [None if value is None else float(value) for value in values])
        seen: dict[str, Any] = {}  # what can be kept by itself, by its type
        for value in values:
            try:
                kind = pa.array([value]).type
            except ARROW_ERRORS as error:
                what = f"field {name}: {ascii(value)[:60]} cannot be kept"
                raise self._refused(
                    f"{what} ({error})", "numbers of at most 64 bits, text in UTF-8, lists of one type"
                ) from None
            if not pa.types.is_null(kind):
                seen.setdefault(str(kind), value)
        found = " and ".join(f"{ascii(value)[:60]} ({kind})" for kind, value in list(seen.items())[:2])
        raise self._refused(f"field {name} holds values of several types: {found or why}", "one type per field")

    def _refused(self, found: str, expected: str) -> SourceError:
        return self.context.error(f"{self.url}: {found}", expected, "mend the source")


def has_surrogate(text: str) -> bool:
    """Whether it holds half a character (a surrogate), which JSON and file names can and UTF-8 cannot."""
    return bool(re.search("[\ud800-\udfff]", text))


def select_columns(table: pa.Table, columns: dict[str, str] | None, where: str, context: Context) -> pa.Table:
    """The configured columns under their names here; all of them where none are configured. Raises SourceError."""
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise context.error(f"{where}: column {', '.join(twice)} is there twice", "every name once", "rename one")
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


def value_at(value: Any, dotted: str) -> Any:
    """The value at a dotted path inside JSON; None where the path ends early."""
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
