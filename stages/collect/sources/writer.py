"""Write a sequence of tables to one parquet file."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.collect.sources.base import Context

ROWS_PER_GROUP = 1 << 17
BYTES_PER_GROUP = 64 << 20
FILE = b"file"  # metadata key of a table, for the name of the file from which the table was read


def write_tables(tables: Iterable[pa.Table], folder: Path, context: Context) -> int:
    """Write the tables to `folder`/part-00000.parquet; the same tables in the same order give the same file.

    A column can have different types in two tables, for example whole numbers in the first table and decimal numbers in
    the second. A type that fits all tables is known only after the last table, so each table is first written to a
    temporary file.

    Args:
        tables: The tables; they are iterated over only once.
        folder: The folder for the parquet file, which this function creates.
        context: Provides the scratch folder, and the source's name for error messages.

    Returns:
        The number of written rows.

    Raises:
        SourceError: There are no rows, the tables' columns or types do not match, or the stage has ended.
    """
    spool = context.scratch / "tables"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(parents=True)
    try:
        schema, parts = _spool_tables(tables, spool, context)
        if schema is None or not any(len(batch) for batch in _batches(parts)):
            raise context.error("no rows received", "at least one row", "correct the source")
        folder.mkdir()
        return _write_parquet(parts, schema, folder / "part-00000.parquet", context)
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def _spool_tables(tables: Iterable[pa.Table], spool: Path, context: Context) -> tuple[pa.Schema | None, list[Path]]:
    schema: pa.Schema | None = None
    parts: list[Path] = []
    for table in tables:
        _check_stop(context)
        file = (table.schema.metadata or {}).get(FILE, b"").decode()
        table = table.replace_schema_metadata(None)
        schema = table.schema if schema is None else _unify(schema, table.schema, file, context)
        parts.append(spool / f"{len(parts):08d}.arrow")
        with pa.OSFile(str(parts[-1]), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=ROWS_PER_GROUP)
    return schema, parts


def _unify(schema: pa.Schema, other: pa.Schema, file: str, context: Context) -> pa.Schema:
    """Return a schema to which the tables of both schemas can be converted.

    A column that is text in only one of the schemas becomes text. The `validate` stage later converts this column cell
    by cell, and quarantines the rows in which the cell is not a number or a time.
    """
    location = f" in {file}" if file else ""
    if sorted(schema.names) != sorted(other.names):
        raise context.error(
            f"its files differ in columns: the columns of the first file are {', '.join(schema.names)}, "
            f"but the columns{location} are {', '.join(other.names)}",
            "the same columns in every file",
            "list the common columns (`columns:`), or select fewer files",
        )
    return pa.schema([_unify_field(field, other.field(field.name), location, context) for field in schema])


def _unify_field(field: pa.Field, other: pa.Field, location: str, context: Context) -> pa.Field:
    text = [pa.types.is_string(f.type) or pa.types.is_large_string(f.type) for f in (field, other)]
    if any(text) and not any(pa.types.is_nested(f.type) or pa.types.is_binary(f.type) for f in (field, other)):
        return pa.field(field.name, pa.string())
    try:
        return pa.unify_schemas([pa.schema([field]), pa.schema([other])], promote_options="permissive").field(0)
    except pa.ArrowException:
        problem = (
            f"its files differ in types: column {field.name} first has the type {field.type}, "
            f"then{location} the type {other.type}"
        )
        raise context.error(problem, "the same types in every file", "correct the file that differs") from None


def _write_parquet(parts: list[Path], schema: pa.Schema, path: Path, context: Context) -> int:
    fields = [pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type) for f in schema]
    schema, rows = pa.schema(fields), 0
    try:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in _groups(parts, schema):
                _check_stop(context)
                writer.write_table(table, row_group_size=ROWS_PER_GROUP)
                rows += len(table)
    except pa.ArrowException as error:
        raise context.error(
            f"cannot be stored as parquet ({error})", "columns without nested objects", "correct the source"
        ) from None
    return rows


def _groups(parts: list[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the spooled rows in large tables, so that many small files do not become many small row groups."""
    waiting: list[pa.Table] = []
    for batch in _batches(parts):
        waiting.append(pa.Table.from_batches([batch]).select(schema.names).cast(schema))
        if sum(map(len, waiting)) >= ROWS_PER_GROUP or sum(t.nbytes for t in waiting) >= BYTES_PER_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _batches(parts: list[Path]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with pa.OSFile(str(part)) as stream, pa.ipc.open_file(stream) as file:
            for number in range(file.num_record_batches):
                yield file.get_batch(number)


def _check_stop(context: Context) -> None:
    if context.stop.is_set():
        raise context.error("interrupted")
