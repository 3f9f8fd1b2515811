"""Copy a file into the repository: durably and atomically."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path

from edge_agent.core import durable

from fleet.errors import StorageError

CHUNK = 1 << 20
Progress = Callable[[int, int], None]  # called with the number of copied bytes and the total number of bytes


def copy(file: Path, destination: Path, progress: Progress | None) -> None:
    """Copy a file durably and atomically, unless the destination already contains the same bytes.

    Args:
        file: The file to copy.
        destination: The path of the copy.
        progress: A function that is called with the number of copied bytes and the total number of bytes, or None.

    Raises:
        StorageError: The file could not be written, for example because the disk is full.
    """
    if destination.is_file() and filecmp.cmp(file, destination, shallow=False):
        return
    partial, total, done = destination.with_name(f".{destination.name}.partial"), file.stat().st_size, 0
    try:
        with file.open("rb") as source, partial.open("wb") as out:
            while chunk := source.read(CHUNK):
                out.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
        durable.sync_file(partial)
        partial.replace(destination)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(
            str(destination),
            error.strerror or str(error),
            "free disk space",
            "free some space, then run the command again",
        ) from None
    durable.sync_directory(destination.parent)
