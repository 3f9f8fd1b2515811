"""How far a long pass over rows has come: a bar on a terminal, else a plain line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

SECONDS = 5.0


def watched(batches: Iterable[pa.RecordBatch], what: str, total: int) -> Iterator[pa.RecordBatch]:
    """The same batches; the rows that have come by are told on standard error."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            for batch in batches:
                yield batch
                bar.advance(task, batch.num_rows)
        return
    done, told = 0, time.monotonic()
    for batch in batches:
        yield batch
        done += batch.num_rows
        if time.monotonic() - told >= SECONDS:
            told = time.monotonic()
            print(f"{what}: {done} of {total} rows", file=sys.stderr, flush=True)
