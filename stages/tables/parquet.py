"""Tables as parquet files: written in batches, the same bytes for the same rows; named when they are damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.core.errors import ContractError
from stages.core.files import rerun_hint

BATCH_ROWS = 65_536
BATCH_LISTS = 256  # rows that carry an image or a clip are large


def batch_rows(schema: pa.Schema) -> int:
    """How many rows one batch of this schema holds."""
    return BATCH_LISTS if any(pa.types.is_list(kind) for kind in schema.types) else BATCH_ROWS


def write_parquet(path: Path, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write batches as one parquet file, the same bytes for the same rows; the number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=batch_rows(schema))
            rows += batch.num_rows
    return rows


def list_parquet_files(folder: Path) -> list[Path]:
    """The parquet files of one data set, in order. Raises ContractError where there is none or one is unreadable."""
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise ContractError(str(folder), "there is no parquet file", "a data set", "run the stage before this one")
    for path in paths:
        try:
            pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise corrupted_parquet(path, str(error)) from None
    return paths


def corrupted_parquet(path: Path, why: str) -> ContractError:
    """The fault of a file, or of the files of a folder, that `collect` or `validate` wrote and nobody can read."""
    stage = "collect" if "snapshot" in path.parts else "validate"
    return ContractError(str(path), f"not readable as parquet: {why}", "a whole parquet file", rerun_hint(stage))
