"""Lock files exclusively with flock, and wait for locks that other processes hold.

The kernel releases a lock when the process that holds the lock ends, even if this process is killed.
"""

from __future__ import annotations

import fcntl
import io
import os
import time
from pathlib import Path
from typing import IO, Any

from edge_agent.core.space import UNWRITABLE

POLL_S = 0.05  # flock has no time limit, so the lock is tried repeatedly


def acquire(stream: IO[Any], wait_s: float) -> bool:
    """Lock an open file exclusively, and return whether the lock was acquired within `wait_s` seconds.

    Raises OSError if the file system does not support locks.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)


def open_file(lock: Path) -> io.FileIO:
    """Open a lock file. If the disk cannot be written, open it only for reading; flock does not need write access."""
    try:
        return io.FileIO(lock, "a+")
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
    # The disk cannot be written. If the lock file does not exist either, lock its folder instead.
    return io.FileIO(os.open(lock if lock.exists() else lock.parent, os.O_RDONLY), "r")
