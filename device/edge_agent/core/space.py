"""Disk space: how much there is, whether something fits, and which errors mean that a disk takes no more.

Here, in `core`, because downloads (`update`), slots (`storage`), the boot (`lifecycle`) and the metrics ask for it.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from edge_agent.core.errors import StorageError

# Errors of a disk that can be read but not written: read-only, full, or over its quota. A failing disk gives others.
UNWRITABLE = frozenset((errno.EROFS, errno.ENOSPC, errno.EDQUOT))


class DiskSpace(NamedTuple):
    """Size and free space of the file system that holds a folder, in bytes."""

    total_bytes: int
    free_bytes: int


def disk_space(folder: Path) -> DiskSpace:
    """Raises OSError; FileNotFoundError where there is no such folder."""
    usage = shutil.disk_usage(folder)
    return DiskSpace(usage.total, usage.free)


def free_bytes(folder: Path) -> int:
    """Free space of the file system that holds `folder`. Raises OSError."""
    return disk_space(folder).free_bytes


def require_space(folder: Path, free: int, needed: int, *, found: str, expected: str, remedy: str) -> None:
    """Check that `needed` bytes fit into the `free` ones of `folder`, before anything is written.

    Args:
        folder: Where they are needed, for the message.
        free: Bytes, as `free_bytes` gave them.
        needed: Bytes, with those that shall stay free (`install.reserve_mb`).
        found, expected, remedy: The other parts of the message.

    Raises:
        StorageError: They do not fit.
    """
    if free < needed:
        raise StorageError(str(folder), found, expected, remedy)


def disk_full(path: Path) -> OSError:
    """The error of a write to `path` that the disk took only in part."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
