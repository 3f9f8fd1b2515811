"""Decode CSV, parquet, image and WAV files to tables. Files are read into memory one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.collect.sources.base import Context, has_surrogate, select_columns
from stages.collect.sources.csv_table import read_csv
from stages.collect.sources.images import read_image
from stages.collect.sources.sound import read_wav
from stages.params.files import Csv, Files, Images, Parquet

SAMPLES_PER_TABLE = 512
BYTES_PER_TABLE = 64 << 20


def read_tables(folder: Path, names: list[str], files: Files, context: Context) -> Iterator[pa.Table]:
    """Yield the contents of files as tables, in the order of `names`.

    Args:
        folder: The folder with the files.
        names: Paths of the files in the folder.
        files: The format of the files, and the columns that their paths give.
        context: Provides the task's `data` parameters, and the source's name for error messages.

    Raises:
        SourceError: A file is not valid.
    """
    for name in names:
        if has_surrogate(name):
            raise context.error(f"{name!a}: its name is not UTF-8", "a name in UTF-8", "rename the file")
    if isinstance(files.format, Csv | Parquet):
        for name in names:
            _refuse_html(folder / name, name, context)
            for table in _read_table_file(folder / name, name, files.format, context):
                yield _add_path_columns(table, name, files, context).replace_schema_metadata({"file": name})
        return
    yield from _read_samples(folder, names, files, context)


def path_columns(name: str, files: Files, context: Context) -> dict[str, str | None]:
    """Return the columns that the regular expression `files.path` extracts from a file's path.

    The expression does not distinguish upper and lower case. The extracted text keeps its case.

    Args:
        name: Path of the file, relative to the archive or folder.
        files: The regular expression `path`. Each of its named groups becomes a text column.
        context: Provides the source's name for error messages.

    Raises:
        SourceError: The regular expression does not match the path.
    """
    if files.path is None:
        return {}
    match = re.search(files.path, name, re.IGNORECASE)
    if not match:
        reason = f"{name}: its path does not match {files.path}"
        raise context.error(reason, "a path that matches `path:`", "correct `path:` or `select:`")
    return match.groupdict()


def _read_table_file(path: Path, name: str, form: Csv | Parquet, context: Context) -> Iterator[pa.Table]:
    if isinstance(form, Csv):
        yield select_columns(read_csv(path, name, form, context), form.columns, name, context)
        return
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for group in range(max(file.num_row_groups, 1)):
                table = file.read_row_group(group) if file.num_row_groups else file.schema_arrow.empty_table()
                yield select_columns(table, form.columns, name, context)
    except (pa.ArrowException, OSError) as error:
        raise context.error(
            f"{name}: not readable as parquet ({error})", "a valid parquet file", "correct the file"
        ) from None


def _add_path_columns(table: pa.Table, name: str, files: Files, context: Context) -> pa.Table:
    for column, value in path_columns(name, files, context).items():
        if column in table.column_names:
            reason = f"{name}: column {column} is in the file and in `path:`"
            raise context.error(reason, "the column in only one of them", "rename the column")
        table = table.append_column(column, pa.array([value] * len(table), pa.string()))
    return table


def _refuse_html(path: Path, name: str, context: Context) -> None:
    with path.open("rb") as stream:
        start = stream.read(512).lstrip(b"\xef\xbb\xbf\r\n\t ").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise context.error(
            f"{name}: it is an HTML page",
            "a data file",
            "correct the URL or the request headers (servers answer unauthenticated requests with a login page)",
        )


def _read_samples(folder: Path, names: list[str], files: Files, context: Context) -> Iterator[pa.Table]:
    read = partial(read_image, background=files.format.background) if isinstance(files.format, Images) else read_wav
    columns = list(path_columns(names[0], files, context))
    if reserved := {"file", "values"} & set(columns):
        raise context.error(
            f"column {', '.join(sorted(reserved))} in `path:` has a reserved name",
            "a name other than `file` and `values`",
            "rename the named group in `path:`",
        )
    waiting: list[tuple[str, dict[str, str | None], np.ndarray]] = []
    for name in names:
        _refuse_html(folder / name, name, context)
        waiting.append((name, path_columns(name, files, context), read((folder / name).read_bytes(), name, context)))
        if len(waiting) == SAMPLES_PER_TABLE or sum(v.nbytes for *_, v in waiting) >= BYTES_PER_TABLE:
            yield _samples_table(waiting, columns)
            waiting = []
    if waiting:
        yield _samples_table(waiting, columns)


def _samples_table(samples: list[tuple[str, dict[str, str | None], np.ndarray]], columns: list[str]) -> pa.Table:
    path_texts = {column: pa.array([texts[column] for _, texts, _ in samples], pa.string()) for column in columns}
    values = pa.array([values for *_, values in samples], pa.list_(pa.float32()))
    return pa.table({"file": [name for name, *_ in samples], **path_texts, "values": values})
