"""Store a snapshot of the data of all configured sources, and record where and when the data was collected.

Writes data/snapshot/<source>/part-00000.parquet, data/provenance.json

The sources are read concurrently. If a source cannot be read, the other sources are still read completely, all
failures are reported together, and the previous snapshot is unchanged. To collect new data, change `collect.snapshot`.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import command
from stages.core.files import new_directory, write_json
from stages.core.progress import download_progress
from stages.params import Params, load

if TYPE_CHECKING:
    from stages.collect.sources import Context

SNAPSHOT = Path("data/snapshot")
PROVENANCE = Path("data/provenance.json")
SCRATCH = Path(".work/collect")


async def collect_source(source: Any, context: Context, folder: Path) -> dict[str, Any]:
    """Read one source and write its rows to a parquet file.

    Args:
        source: Parameters of the source.
        context: The source's name, the `data` parameters, the retry settings and the progress reporter.
        folder: The folder in which the parquet file is written.

    Returns:
        The provenance of the rows, for data/provenance.json.

    Raises:
        StageError: The source cannot be read, or its rows cannot be written.
    """
    from stages.collect.sources import FETCH
    from stages.collect.sources.normalise import normalise
    from stages.collect.sources.writer import write_tables

    try:
        raw = await FETCH[source.type](source, context)
        rows = await asyncio.to_thread(write_tables, normalise(raw.tables, context.data), folder, context)
    except OSError as error:  # so that it is reported together with the failures of the other sources
        where = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise context.error(
            where, "access to the file, and enough disk space", "free disk space or correct the path, then run again"
        ) from error
    print(f"{context.name}: {rows} rows from {len(raw.origins)} origin(s)", flush=True)
    for left_out in raw.left_out:
        print(f"{context.name}: {left_out}", flush=True)
    return {
        "type": source.type,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": rows,
        "origins": [asdict(origin) for origin in raw.origins],
        "left_out": [asdict(left_out) for left_out in raw.left_out],
    }


async def take_snapshot(params: Params) -> None:
    """Read all sources concurrently, and replace the snapshot if every source was read successfully.

    Raises CombinedError with the errors of all sources that could not be read.
    """
    from stages.collect.sources import Context
    from stages.collect.sources.concurrency import gather_all

    names = sorted(params.collect.sources)
    stop = threading.Event()
    with new_directory(SNAPSHOT) as folder, download_progress() as progress:
        contexts = [
            Context(
                name=name,
                data=params.data,
                snapshot=params.collect.snapshot.astimezone(UTC),
                retry=params.collect.retry,
                scratch=SCRATCH / name,
                progress=progress,
                stop=stop,
            )
            for name in names
        ]
        jobs = (collect_source(params.collect.sources[c.name], c, folder / c.name) for c in contexts)
        try:
            provenances = await gather_all(jobs)
        finally:
            stop.set()  # threads cannot be cancelled: they check this event
        provenance = {
            "snapshot": params.collect.snapshot.isoformat(),
            "sources": dict(zip(names, provenances, strict=True)),
        }
        write_json(PROVENANCE, provenance)
    for name in names:
        shutil.rmtree(SCRATCH / name, ignore_errors=True)


def main() -> None:
    """Run the `collect` stage in the current directory."""
    command.parser("collect", __doc__).parse_args()
    asyncio.run(take_snapshot(load()))
