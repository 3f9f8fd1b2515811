"""Read CSV files as tables. No word means a missing value, unless the parameters of the format say so."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from stages.collect.sources.base import Context
from stages.params.files import Csv

OTHER_COLUMNS = "*"  # name in `missing_values` for all columns that it does not name


def read_csv(path: Path, name: str, form: Csv, context: Context) -> pa.Table:
    """Read a CSV file (RFC 4180) with inferred types.

    An empty field is a missing value, and so is a field whose text is in the column's list in `form.missing_values`. No
    other word is: a column with numbers and the word NA or NaN becomes a column of text.

    The group and label columns are read as text, so that an identifier such as `007` keeps its zeros. In these
    columns, `1.0` becomes `1`, because spreadsheets and pandas write whole numbers as `1.0`.

    Args:
        path: The file.
        name: Path of the file relative to the archive or folder, for error messages.
        form: The CSV file's separator, encoding, columns and missing values.
        context: Provides the task's `data` parameters, and the source's name for error messages.

    Raises:
        SourceError: The file is not valid, has no rows, or lacks a column that `missing_values` names.
    """
    _check_encoding(path, name, form.encoding, context)
    keys = {context.data.group, context.data.label}
    texts = sorted(column for column, name in (form.columns or {n: n for n in keys}).items() if name in keys)
    try:
        table = _parse(path, form, texts)
        if len(set(table.column_names)) == len(table.column_names):  # otherwise select_columns refuses the table
            table = _with_missing_values(table, path, form, texts)
    except pa.ArrowInvalid as error:
        raise context.error(
            f"{name}: not readable as CSV ({error})", "a table with one header line", "correct the file"
        ) from None
    if unknown := sorted((form.missing_values or {}).keys() - {OTHER_COLUMNS, *table.column_names}):
        raise context.error(
            f"{name}: column {', '.join(unknown)} is missing; the columns are {', '.join(table.column_names)}",
            "every column that `missing_values:` names",
            "correct `missing_values:` or the file",
        )
    if len(table) == 0:
        raise context.error(f"{name}: no rows", "at least one row below the header", "exclude the file (`select:`)")
    for index, column in enumerate(table.column_names):
        if column in texts:
            without_point = pc.replace_substring_regex(table.column(index), r"^(-?\d+)\.0+$", r"\1")
            table = table.set_column(index, column, without_point)
    return table


def _with_missing_values(table: pa.Table, path: Path, form: Csv, texts: list[str]) -> pa.Table:
    """Read the columns again for which words mean a missing value, and those in which Arrow has read the word NaN."""
    missing = form.missing_values or {}
    columns_of_words: dict[tuple[str, ...], list[str]] = {}
    for column in table.column_names:
        words = missing.get(column, missing.get(OTHER_COLUMNS, []))
        columns_of_words.setdefault(tuple(words), []).append(column)
    for same_words, columns in columns_of_words.items():
        part = _parse(path, form, texts, same_words, columns) if same_words else table.select(columns)
        if nan := [column for column in columns if _has_nan(part[column])]:
            part = _replace(part, _parse(path, form, [*texts, *nan], same_words, columns))
        table = _replace(table, part)
    return table


def _parse(
    path: Path, form: Csv, texts: list[str], words: Iterable[str] = (), columns: list[str] | None = None
) -> pa.Table:
    """Read the file with Arrow.

    Args:
        path: The file.
        form: The separator and the encoding.
        texts: Columns that are read as text.
        words: Texts that mean a missing value, in addition to an empty field.
        columns: The columns to read; None reads all.
    """
    from pyarrow import csv

    return csv.read_csv(
        path,
        read_options=csv.ReadOptions(encoding=form.encoding),
        parse_options=csv.ParseOptions(delimiter=form.separator, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            null_values=["", *words],
            strings_can_be_null=True,
            column_types=dict.fromkeys(texts, pa.string()),
            include_columns=columns,
        ),
    )


def _replace(table: pa.Table, part: pa.Table) -> pa.Table:
    for column in part.column_names:
        table = table.set_column(table.column_names.index(column), column, part[column])
    return table


def _has_nan(column: pa.ChunkedArray) -> bool:
    return pa.types.is_floating(column.type) and bool(pc.any(pc.is_nan(column)).as_py())


def _check_encoding(path: Path, name: str, encoding: str, context: Context) -> None:
    """Raise SourceError if the file is not text in `encoding`; the CSV reader would accept it as binary values."""
    try:
        decoder, done = codecs.getincrementaldecoder(encoding)(), 0
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                decoder.decode(chunk)
                done += len(chunk)
            decoder.decode(b"", final=True)
    except (UnicodeError, LookupError) as error:
        raise context.error(
            f"{name}: not readable as {encoding} ({error})", "text in that encoding", "correct `encoding:`"
        ) from None
