"""Exclusive locks on files (flock). The kernel frees a lock when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

POLL_S = 0.1  # flock has no time limit of its own


@contextlib.contextmanager
def exclusive(path: Path, busy: Exception, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock on the file `path`, which is made where it is missing.

    Args:
        path: a file in a folder that exists.
        busy: what is raised where another process holds it, and goes on to.
        wait_s: seconds to wait for that process; 0: not at all.

    Raises OSError where the file cannot be opened.
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
