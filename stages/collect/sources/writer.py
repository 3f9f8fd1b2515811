"""Tables that come one after the other, as one parquet file."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.collect.sources.base import Context

ROWS_PER_GROUP = 1 << 17
BYTES_PER_GROUP = 64 << 20
FILE = b"file"  # of a table's metadata: which file it came from


def write_tables(tables: Iterable[pa.Table], folder: Path, context: Context) -> int:
    """The tables as `folder`/part-00000.parquet; returns the number of rows. Raises SourceError.

    A column may be empty, or whole numbers, in one table and something finer in the next. What suits all is known
    only at the end, so the tables first lie on disk as they are; one at a time is in memory. The same tables in the
    same order give the same bytes.
    """
    aside = context.scratch / "tables"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        schema, parts = _spool_tables(tables, aside, context)
        if schema is None or not any(len(batch) for batch in _batches(parts)):
            raise context.error("no rows came", "at least one", "mend the source")
        folder.mkdir()
        return _write_parquet(parts, schema, folder / "part-00000.parquet", context)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _spool_tables(tables: Iterable[pa.Table], aside: Path, context: Context) -> tuple[pa.Schema | None, list[Path]]:
    schema: pa.Schema | None = None
    parts: list[Path] = []
    for table in tables:
        _check_stop(context)
        file = (table.schema.metadata or {}).get(FILE, b"").decode()
        table = table.replace_schema_metadata(None)
        schema = table.schema if schema is None else _unify(schema, table.schema, file, context)
        parts.append(aside / f"{len(parts):08d}.arrow")
        with pa.OSFile(str(parts[-1]), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=ROWS_PER_GROUP)
    return schema, parts


def _unify(schema: pa.Schema, other: pa.Schema, file: str, context: Context) -> pa.Schema:
    """What holds both. A column of numbers or times that is text in another file is text: the contract, which reads
    it, sends the cells that are none to quarantine.
    """
    here = f" in {file}" if file else ""
    if sorted(schema.names) != sorted(other.names):
        raise context.error(
            f"its files differ in columns: {', '.join(schema.names)} and then{here} {', '.join(other.names)}",
            "the same columns in every file",
            "name the ones that all have (`columns:`), or select fewer files",
        )
    return pa.schema([_unify_field(field, other.field(field.name), here, context) for field in schema])


def _unify_field(field: pa.Field, other: pa.Field, here: str, context: Context) -> pa.Field:
    text = [pa.types.is_string(f.type) or pa.types.is_large_string(f.type) for f in (field, other)]
    if any(text) and not any(pa.types.is_nested(f.type) or pa.types.is_binary(f.type) for f in (field, other)):
        return pa.field(field.name, pa.string())
    try:
        return pa.unify_schemas([pa.schema([field]), pa.schema([other])], promote_options="permissive").field(0)
    except pa.ArrowException:
        found = f"its files differ in types: column {field.name} is {field.type} and then{here} {other.type}"
        raise context.error(found, "the same types in every file", "mend the file that differs") from None


def _write_parquet(parts: list[Path], schema: pa.Schema, path: Path, context: Context) -> int:
    nameless = [pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type) for f in schema]
    schema, rows = pa.schema(nameless), 0
    try:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in _groups(parts, schema):
                _check_stop(context)
                writer.write_table(table, row_group_size=ROWS_PER_GROUP)
                rows += len(table)
    except pa.ArrowException as error:
        raise context.error(f"not to be kept as parquet ({error})", "flat columns", "mend the source") from None
    return rows


def _groups(parts: list[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """Small tables together, so that a thousand small files do not become a thousand row groups."""
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
