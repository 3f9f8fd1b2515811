"""Wait for exclusive locks on files (flock). The kernel releases a lock when its process ends, even if it is killed."""

from __future__ import annotations

import fcntl
import time
from typing import IO, Any

POLL_S = 0.05  # flock has no time limit, so the lock is tried repeatedly


def acquire(stream: IO[Any], wait_s: float) -> bool:
    """Lock an open file. Return False if another process still holds the lock after `wait_s` seconds.

    Raises OSError if the file system has no locks.
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
