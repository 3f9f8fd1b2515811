"""Report the progress of long-running tasks.

On a terminal, each task has a progress bar. In other output, such as a log file, each task gets a line of text every
few seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import pyarrow as pa
    from rich import progress as rich_progress

SECONDS = 5.0  # time between two progress lines of one task


@dataclass
class TaskProgress:
    """The progress of one task.

    done, total: Completed and total units of work, such as rows or bytes; `total` is None if it is not known.
    printed: Time at which the last line about this task was printed, in seconds on the monotonic clock.
    bar: Id of the task's progress bar; None if the output is not a terminal.
    """

    done: int
    total: int | None
    printed: float
    bar: rich_progress.TaskID | None


class ProgressReporter:
    """A context manager that reports the progress of named tasks; several threads can use it at the same time."""

    def __init__(
        self,
        stream: TextIO,
        line: Callable[[str, int, int | None], str],
        bars: Callable[[], rich_progress.Progress],
    ) -> None:
        """Set up the reporter; nothing is shown before a task starts.

        Args:
            stream: The output stream. Progress bars are shown if it is a terminal, and lines are written if it is not.
            line: A function that returns the line of text for a task. Its arguments are the task's name, the completed
                units of work, and the total units (None if not known).
            bars: A function that creates the progress bars. It is called only if `stream` is a terminal, because it
                imports a library that loads slowly.
        """
        self._stream, self._line, self._make_bars = stream, line, bars
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskProgress] = {}
        self._bars: rich_progress.Progress | None = None

    def __enter__(self) -> ProgressReporter:
        if self._stream.isatty():
            self._bars = self._make_bars()
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def start(self, name: str, total: int | None, done: int = 0) -> None:
        """Start to report the progress of a task. If the task has already started, its numbers are replaced.

        Args:
            name: Name of the task, unique within this reporter.
            total: Total units of work; None if the total is not known.
            done: Units of work that are already done.
        """
        with self._lock:
            task = self._tasks.get(name)
            if task is None:
                bar = self._bars.add_task(name) if self._bars else None
                task = self._tasks[name] = TaskProgress(done, total, time.monotonic(), bar)
            task.done, task.total = done, total
            if self._bars and task.bar is not None:
                self._bars.update(task.bar, total=total, completed=done)

    def advance(self, name: str, count: int) -> None:
        """Record that `count` more units of the started task `name` are done."""
        with self._lock:
            task = self._tasks[name]
            task.done += count
            if self._bars and task.bar is not None:
                self._bars.update(task.bar, completed=task.done)
            elif time.monotonic() - task.printed >= SECONDS:
                task.printed = time.monotonic()
                print(self._line(name, task.done, task.total), file=self._stream, flush=True)


def report_rows(batches: Iterable[pa.RecordBatch], name: str, total: int) -> Iterator[pa.RecordBatch]:
    """Yield the batches unchanged, and report on standard error how many rows have been read.

    Args:
        batches: Batches of rows.
        name: Name of the task, which the report shows.
        total: Number of rows in all batches.
    """
    with ProgressReporter(sys.stderr, _row_line, _row_bars) as progress:
        progress.start(name, total)
        for batch in batches:
            yield batch
            progress.advance(name, batch.num_rows)


def download_progress() -> ProgressReporter:
    """Return a reporter that shows the progress of downloads in bytes on standard output."""
    return ProgressReporter(sys.stdout, _byte_line, _byte_bars)


def _row_line(name: str, done: int, total: int | None) -> str:
    return f"{name}: {done} of {total} rows"


def _row_bars() -> rich_progress.Progress:
    from rich import progress
    from rich.console import Console

    return progress.Progress(console=Console(stderr=True), transient=True)


def _byte_line(name: str, done: int, total: int | None) -> str:
    share = f" of {total / 1e6:.1f} MB ({done / total:.0%})" if total else " MB"
    return f"{name}: {done / 1e6:.1f}{share}"


def _byte_bars() -> rich_progress.Progress:
    from rich import progress

    return progress.Progress(
        "{task.description}",
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
