"""Disk space: how much is free, whether something fits, and which errors mean that a disk cannot be written.

What follows from a full disk is decided by its callers: `update/trust.py` refuses a download and
`storage/target_selection.py` an installation; `lifecycle/boot.py` keeps serving with a state that it could not write;
`monitoring/ring.py` stops capturing samples.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from edge_agent.core.errors import StorageError

# Errors of a disk that can be read but not written: read-only, full, or over its quota. A failing disk reports others.
UNWRITABLE = frozenset((errno.EROFS, errno.ENOSPC, errno.EDQUOT))


class DiskSpace(NamedTuple):
    """Size and free space of the file system that holds a folder, in bytes."""

    total_bytes: int
    free_bytes: int


def disk_space(folder: Path) -> DiskSpace:
    """Return the size and the free space of the file system of `folder`.

    Raises OSError: FileNotFoundError where the folder does not exist.
    """
    usage = shutil.disk_usage(folder)
    return DiskSpace(usage.total, usage.free)


def free_bytes(folder: Path) -> int:
    """Return the free space of the file system of `folder`, in bytes. Raises OSError."""
    return disk_space(folder).free_bytes


def require_space(free: int, needed: int, error: StorageError) -> None:
    """Raise an error if something does not fit on the disk, before anything is written.

    Args:
        free: Free bytes, as `free_bytes` returns them.
        needed: Bytes that are needed, including those that have to stay free (`install.reserve_mb`).
        error: The error to raise.

    Raises:
        StorageError: Fewer bytes are free than needed.
    """
    if free < needed:
        raise error


def disk_full(path: Path) -> OSError:
    """Return the error for a write to `path` that the disk accepted only in part."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
