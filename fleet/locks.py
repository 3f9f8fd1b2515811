"""Exclusive locks on files (flock). The kernel releases a lock when its process ends, even if the process is killed."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

POLL_S = 0.1  # flock itself has no time limit


@contextlib.contextmanager
def exclusive(path: Path, busy: Exception, wait_s: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created if it is missing.

    Args:
        path: The lock file, in an existing folder.
        busy: The error to raise if another process still holds the lock after the wait.
        wait_s: The number of seconds to wait for the lock; 0 does not wait.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("ab") as stream:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise busy from None
                time.sleep(POLL_S)
        yield
