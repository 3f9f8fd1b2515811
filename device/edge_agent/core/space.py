"""Check disk space: how many bytes are free, whether data fits, and which errors mean that a disk is not writable.

The callers decide what happens when the disk is full. `update/trust.py` refuses a download,
`storage/target_selection.py` refuses an installation, `lifecycle/boot.py` starts the service although it could not
write the new state, `core/state.py` keeps a rollback in memory, and `monitoring/ring.py` stops capturing samples.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from edge_agent.core.errors import StorageError

# Errors of a disk that may still be readable but cannot be written: it is read-only or full, the quota is used up, or
# the disk fails.
UNWRITABLE = frozenset((errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO))


class DiskSpace(NamedTuple):
    """Size and free space of the file system that holds a folder, in bytes."""

    total_bytes: int
    free_bytes: int


def disk_space(folder: Path) -> DiskSpace:
    """Return the size and the free space of the file system of `folder`.

    Raises FileNotFoundError if the folder does not exist, or another OSError.
    """
    usage = shutil.disk_usage(folder)
    return DiskSpace(usage.total, usage.free)


def free_bytes(folder: Path) -> int:
    """Return the free space of the file system of `folder`, in bytes. Raises OSError."""
    return disk_space(folder).free_bytes


def require_space(free: int, needed: int, error: StorageError) -> None:
    """Raise `error` if fewer bytes are free than needed. Callers use this check before they write.

    Args:
        free: Number of free bytes, from `free_bytes`.
        needed: Number of bytes that are needed, including the bytes that must stay free (`install.reserve_mb`).
        error: The error to raise.

    Raises:
        StorageError: Fewer bytes are free than needed.
    """
    if free < needed:
        raise error


def disk_full(path: Path) -> OSError:
    """Return the OSError of a full disk. The caller raises it if a write to `path` stored only a part of the data."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
