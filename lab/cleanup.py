"""Clean up after this process has ended, even if an unhandled signal or SIGKILL ended it.

A `Watcher` is a small process in a separate session. It waits until the process that started it has ended (with a
pidfd, so that a reused process id cannot confuse it) and then executes the clean-up command. A process that cleans up
in the regular way cancels its watcher.
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
# NOTE: the watcher ignores these signals, because they reach the whole process group or container of a run.
WATCH = """\
import os, select, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
select.select([int(sys.argv[1])], [], [])
os.execvp(sys.argv[2], sys.argv[2:])
"""
KILL_GROUP = 'kill -KILL -- "-$1"'


class Watcher:
    """Run `command` in the repository's folder after this process has ended, unless `cancel` was called."""

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
        """End the watcher without running the command. Further calls have no effect."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.cancel()


@contextmanager
def session(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a process in a separate session. It and its children are killed when the block or this process ends.

    Args:
        command: Program and arguments.
        options: Options of `subprocess.Popen`.
    """
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        with Watcher("sh", "-c", KILL_GROUP, "kill", str(process.pid)):
            yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
