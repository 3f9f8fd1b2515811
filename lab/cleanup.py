"""Clean-up that happens however this process ends: also by a signal that nobody handles, also by kill -9.

A `Watcher` is a small process in a session of its own. It waits until the process that started it has ended (a pidfd,
so no other process can be taken for it) and then becomes the command that cleans up. Whoever cleans up in order
cancels it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
# NOTE: the signals that end a run reach its whole process group, or all of a container: the watcher outlives those.
WATCH = """\
import os, select, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
select.select([int(sys.argv[1])], [], [])
os.execvp(sys.argv[2], sys.argv[2:])
"""
KILL_GROUP = 'kill -KILL -- "-$1"'


class Watcher:
    """Runs `command` from the repository's folder once this process has ended, unless `cancel` came first."""

    def __init__(self, *command: str) -> None:
        owner = os.pidfd_open(os.getpid())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", WATCH, str(owner), *command],
                cwd=REPOSITORY,
                pass_fds=[owner],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(owner)

    def cancel(self) -> None:
        """Calling it again has no effect."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.cancel()


@contextmanager
def session(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process in a session of its own. What it started is gone with it when the block ends, or this process does.

    Args:
        command: what to run.
        options: as of `subprocess.Popen`.
    """
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        with Watcher("sh", "-c", KILL_GROUP, "kill", str(process.pid)):
            yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
