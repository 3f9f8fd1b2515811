"""Hold exclusive locks on files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edge_agent.core import locks


@contextlib.contextmanager
def exclusive(path: Path, busy: Exception, wait_s: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created if it is missing.

    Args:
        path: The lock file, in an existing folder.
        busy: The error to raise if another process still holds the lock after `wait_s` seconds.
        wait_s: The number of seconds to wait for the lock; with 0, the function does not wait.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("ab") as stream:
        if not locks.acquire(stream, wait_s):
            raise busy
        yield
