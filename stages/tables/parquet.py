"""Write parquet files in batches, with the same bytes for the same rows, and check files before they are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.core.errors import ContractError
from stages.core.files import rerun_hint

BATCH_ROWS = 65_536
BATCH_LISTS = 256  # rows per batch if a row holds an image or an audio clip, because such rows are large


def batch_rows(schema: pa.Schema) -> int:
    """Return the number of rows per batch; it is smaller if the schema has a column of lists."""
    return BATCH_LISTS if any(pa.types.is_list(kind) for kind in schema.types) else BATCH_ROWS


def write_parquet(path: Path, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write batches of rows to one parquet file, with the same bytes for the same rows.

    Args:
        path: The file to write; its missing parent folders are created.
        batches: The batches of rows, in the order in which they are written.
        schema: Schema of the batches.

    Returns:
        The number of rows that were written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=batch_rows(schema))
            rows += batch.num_rows
    return rows


def list_parquet_files(folder: Path) -> list[Path]:
    """Return the sorted paths of the parquet files in `folder`.

    Raises:
        ContractError: The folder has no parquet file, or one of its files is corrupted.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise ContractError(
            str(folder), "it has no parquet file", "at least one parquet file", "run the stage that writes this folder"
        )
    for path in paths:
        try:
            pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise corrupted_parquet(path, str(error)) from None
    return paths


def corrupted_parquet(path: Path, reason: str) -> ContractError:
    """Return the error for a corrupted parquet file or a folder that contains such a file.

    The error's remedy names the stage that must be run again.
    """
    stage = "collect" if "snapshot" in path.parts else "validate"
    return ContractError(str(path), f"not readable as parquet: {reason}", "a complete parquet file", rerun_hint(stage))
