"""Take a snapshot of every configured source, with its provenance.

Writes data/snapshot/<source>/part-00000.parquet, data/provenance.json

The sources are asked side by side. When one fails, the others are still heard, all failures are told
together and the last snapshot stays as it is. New data is taken in by changing `collect.snapshot`.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.errors import CombinedError, StageError, run
from stages.files import new_directory, write_json
from stages.params import Params, load
from stages.sources import FETCH, Context
from stages.sources.raw import batches

SNAPSHOT = Path("data/snapshot")
PROVENANCE = Path("data/provenance.json")
SCRATCH = Path(".work/collect")


async def take(name: str, params: Params, folder: Path) -> dict[str, Any]:
    """Write one source's rows into `folder`; return its provenance. Raises StageError."""
    source = params.collect.sources[name]
    context = Context(
        name=name,
        data=params.data,
        snapshot=params.collect.snapshot.astimezone(UTC),
        seed=params.seed,
        retry=params.collect.retry,
        scratch=SCRATCH / name,
    )
    raw = await FETCH[source.type](source, context)
    rows = await asyncio.to_thread(write_tables, batches(raw.tables, params.data), folder, context)
    print(f"{name}: {rows} rows from {len(raw.origins)} origin(s)", flush=True)
    return {
        "type": source.type,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": rows,
        "origins": [asdict(origin) for origin in raw.origins],
    }


def write_tables(tables: Iterable[pa.Table], folder: Path, context: Context) -> int:
    """The tables as one parquet file; returns the number of rows. Raises SourceError where they differ in columns."""
    folder.mkdir()
    writer: pq.ParquetWriter | None = None
    rows = 0
    try:
        for table in tables:
            if writer is None:
                writer = pq.ParquetWriter(folder / "part-00000.parquet", table.schema, compression="zstd")
            writer.write_table(conform(table, writer.schema, context))
            rows += len(table)
    finally:
        if writer is not None:
            writer.close()
    if rows == 0:
        raise context.error("no rows came", "at least one", "mend the source")
    return rows


def conform(table: pa.Table, schema: pa.Schema, context: Context) -> pa.Table:
    """The table with the columns of the first one. Raises SourceError."""
    if sorted(table.column_names) != sorted(schema.names):
        raise context.error(
            f"its files differ in columns: {', '.join(schema.names)} and then {', '.join(table.column_names)}",
            "the same columns in every file",
            "name the ones that all have (`columns:`), or select fewer files",
        )
    try:
        return table.select(schema.names).cast(schema)
    except pa.ArrowInvalid as error:
        raise context.error(f"its files differ in types ({error})", "the same types in every file", "mend it") from None


async def snapshot(params: Params) -> None:
    """All sources, side by side; the snapshot is replaced only when every one delivered. Raises CombinedError."""
    names = sorted(params.collect.sources)
    with new_directory(SNAPSHOT) as folder:
        taken = await asyncio.gather(*(take(name, params, folder / name) for name in names), return_exceptions=True)
        failures = [result for result in taken if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, StageError):
                raise failure
        if failures:
            raise CombinedError([failure for failure in failures if isinstance(failure, StageError)])
    provenance = {
        "snapshot": params.collect.snapshot.isoformat(),
        "sources": dict(zip(names, taken, strict=True)),
    }
    write_json(PROVENANCE, provenance)
    for name in names:
        shutil.rmtree(SCRATCH / name, ignore_errors=True)


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m stages.collect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    asyncio.run(snapshot(load()))


if __name__ == "__main__":
    run(main)
