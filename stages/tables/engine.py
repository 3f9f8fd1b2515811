"""Evaluate Ibis expressions on DuckDB, which runs in the stage's own process, or on Spark, with equal results.

Both engines respect their memory limit and write data that exceeds it to disk. The rows of a result are delivered as a
stream of Arrow batches in the order that the expression defines, and both engines deliver the same batches.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.core.errors import ParameterError, StageError
from stages.params import locate_parameter
from stages.tables.connections import connect_duckdb, connect_spark
from stages.tables.parquet import batch_rows, corrupted_parquet

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd

    from stages.params.common import Compute

SCRATCH = Path(".work")


class Engine:
    """DuckDB or Spark, which reads tables and evaluates Ibis expressions: `with Engine(params.compute) as engine`."""

    def __init__(self, compute: Compute) -> None:
        """Start the engine that `compute` selects. Raises ParameterError."""
        _remove_stale_spill()
        self.name = compute.backend
        self._spill = Path(tempfile.mkdtemp(prefix=f"tables-{os.getpid()}-", dir=SCRATCH)).resolve()
        self._count = 0
        self._files: list[Path] = []
        try:
            connect = connect_duckdb if self.name == "duckdb" else connect_spark
            self._connection: Any = connect(compute, self._spill)
        except BaseException:
            shutil.rmtree(self._spill, ignore_errors=True)
            raise

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.close()
        if kind is not None and kind.__name__ == "OutOfMemoryException":
            raise ParameterError(
                locate_parameter("compute.memory_limit"),
                f"not enough for this table: {str(error).splitlines()[0]}",
                "memory for at least one batch of each thread",
                "raise the limit",
            ) from None
        if error is not None and _is_engine_error(error):
            self._explain(error)

    def _explain(self, error: BaseException) -> None:
        """Raise an error that names the cause, if a corrupted file or a full disk caused the engine's error."""
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        for path in self._files:
            try:
                for _ in pq.ParquetFile(path).iter_batches():
                    pass
            except (pa.ArrowException, OSError) as corruption:
                raise corrupted_parquet(path, str(corruption)) from None
        if "No space left" in str(error):
            raise StageError(
                str(SCRATCH), reason, "disk space for data that exceeds the memory limit", "free disk space"
            ) from None
        if "parquet" in str(error).lower():
            raise corrupted_parquet(self._files[0].parent, reason) from None

    def close(self) -> None:
        """Stop the engine, and remove the data that it wrote to disk because of its memory limit."""
        if self.name == "duckdb":
            self._connection.disconnect()
        else:
            self._connection._session.stop()
        _close_default_backend()
        shutil.rmtree(self._spill, ignore_errors=True)
        with contextlib.suppress(OSError):
            SCRATCH.rmdir()  # fails while another engine uses the folder

    def read(self, paths: list[Path]) -> ir.Table:
        """Return an Ibis table whose rows are in parquet files. All files must have the same schema."""
        self._files += paths
        files = [str(path.resolve()) for path in paths]
        if self.name == "duckdb":
            return self._connection.read_parquet(files)
        name = self._next()
        self._connection._session.read.parquet(*files).createOrReplaceTempView(name)
        return self._connection.table(name)

    def from_pandas(self, frame: pd.DataFrame) -> ir.Table:
        """Return an Ibis table with the rows of a small pandas data frame."""
        name = self._next()
        if self.name == "duckdb":
            # NOTE: create_table of ibis 12 writes SQL that DuckDB 2.0 does not accept.
            self._connection.con.register(name, pa.Table.from_pandas(frame, preserve_index=False))
            return self._connection.table(name)
        self._connection._session.createDataFrame(frame).createOrReplaceTempView(name)
        return self._connection.table(name)

    def materialise(self, table: ir.Table) -> ir.Table:
        """Evaluate the expression `table` once, and return a table that holds the resulting rows.

        DuckDB holds the rows in its memory or on disk; Spark writes them to a folder.
        """
        name = self._next()
        if self.name == "duckdb":
            self._connection.con.execute(f"CREATE TABLE {name} AS {self._connection.compile(table)}")
            return self._connection.table(name)
        folder = self._spill / name
        self._connection._session.sql(self._connection.compile(table)).write.parquet(str(folder))
        self._connection._session.read.parquet(str(folder)).createOrReplaceTempView(name)
        return self._connection.table(name)

    def hash_cells(self, column: ir.Column) -> ir.IntegerColumn:
        """Return an expression for a 64-bit hash of each cell of a column.

        Cells can be lists. For lists, ibis has no 64-bit hash on Spark, so the engine's built-in function is used.
        """
        import ibis
        import ibis.expr.datatypes as dt

        def code(cell):  # type: ignore[no-untyped-def]
            """Declare the engine's built-in hash function, which runs instead of this Python function."""

        name, kind = ("hash", dt.uint64) if self.name == "duckdb" else ("xxhash64", dt.int64)
        return ibis.udf.scalar.builtin(code, name=name, signature=((column.type(),), kind))(column)

    def microseconds(self, time: ir.TimestampColumn) -> ir.IntegerColumn:
        """Return an expression that converts each time of a column to microseconds since 1970.

        NOTE: `epoch_seconds` of ibis includes fractions of a second on DuckDB but not on Spark, and ibis cannot extract
        microseconds on Spark. So the engine's exact built-in function is used.
        """
        import ibis
        import ibis.expr.datatypes as dt

        def epoch(moment):  # type: ignore[no-untyped-def]
            """Declare the engine's built-in conversion, which runs instead of this Python function."""

        name = "epoch_us" if self.name == "duckdb" else "unix_micros"
        return ibis.udf.scalar.builtin(epoch, name=name, signature=((dt.timestamp,), dt.int64))(time)

    def stream(self, table: ir.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the rows of `table` in order, cast to `schema`. All batches except the last have the same size."""
        return _rebatch(self._batches(table, batch_rows(schema)), schema)

    def _batches(self, table: ir.Table, rows: int) -> Iterator[pa.RecordBatch]:
        if self.name == "duckdb":
            # NOTE: ibis 12 calls a method that DuckDB 2.0 no longer has (fetch_record_batch), so the SQL is sent
            # directly.
            yield from self._connection.con.sql(self._connection.compile(table)).to_arrow_reader(rows)
            return
        # The executors write the result in order, part by part, so that the driver never holds all of it.
        folder = self._spill / self._next()
        self._connection._session.sql(self._connection.compile(table)).write.parquet(str(folder))
        for part in sorted(folder.glob("part-*.parquet")):
            yield from pq.ParquetFile(part).iter_batches(rows)
        shutil.rmtree(folder)

    def _next(self) -> str:
        self._count += 1
        return f"table_{self._count}"


def _remove_stale_spill() -> None:
    """Remove the data that earlier engines wrote to disk and could not remove, because their processes were killed."""
    SCRATCH.mkdir(exist_ok=True)
    for folder in SCRATCH.glob("tables-*-*"):
        try:
            os.kill(int(folder.name.split("-")[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (PermissionError, ValueError):
            continue  # the process is alive and belongs to another user, or the name has no process id


def _close_default_backend() -> None:
    """Close the default backend of ibis, which ibis opens for the in-memory table of a failed pandera check.

    NOTE: If this backend is still open when Python exits, DuckDB's bindings (nanobind) print a hundred lines about
    leaks.
    """
    import ibis

    if ibis.options.default_backend is not None:
        ibis.options.default_backend.disconnect()
        ibis.options.default_backend = None


def _rebatch(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Regroup the rows of `batches` into batches of a fixed size, because the sizes from DuckDB and Spark differ."""
    size = batch_rows(schema)
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch.select(schema.names).cast(schema))
        rows += batch.num_rows
        while rows >= size:
            joined = pa.Table.from_batches(waiting, schema)
            yield joined.slice(0, size).combine_chunks().to_batches()[0]
            remaining = joined.slice(size)
            waiting, rows = remaining.to_batches(), remaining.num_rows
    if rows:
        yield pa.Table.from_batches(waiting, schema).combine_chunks().to_batches()[0]


def _is_engine_error(error: BaseException) -> bool:
    """Return True if DuckDB, Spark or Arrow raised the error. Arrow reports corruption as an OSError without errno."""
    if isinstance(error, OSError):
        return error.errno is None
    return type(error).__module__.split(".")[0] in ("_duckdb", "duckdb", "py4j", "pyspark", "pyarrow")
