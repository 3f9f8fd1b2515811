"""Report how far long work has come: a bar per task on a terminal, else a plain line of it every few seconds."""

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

SECONDS = 5.0  # from one line of a task to the next one


@dataclass
class TaskProgress:
    """What is done of a task, of how much in total; when its last line was printed, and its bar."""

    done: int
    total: int | None
    printed: float
    bar: rich_progress.TaskID | None


class ProgressReporter:
    """The progress of named tasks, used as a context. Tasks may advance in several threads."""

    def __init__(
        self,
        stream: TextIO,
        line: Callable[[str, int, int | None], str],
        bars: Callable[[], rich_progress.Progress],
    ) -> None:
        """Args:
        stream: Where lines go; bars are shown where it is a terminal.
        line: The plain line of a task, from its name, what is done, and the total where that is known.
        bars: Makes the display of a terminal. Called only there, since its library takes a moment to load.
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
        """A task begins, or begins again; `done` of `total` is done already."""
        with self._lock:
            task = self._tasks.get(name)
            if task is None:
                bar = self._bars.add_task(name) if self._bars else None
                task = self._tasks[name] = TaskProgress(done, total, time.monotonic(), bar)
            task.done, task.total = done, total
            if self._bars and task.bar is not None:
                self._bars.update(task.bar, total=total, completed=done)

    def advance(self, name: str, count: int) -> None:
        """`count` more of a task that has started is done."""
        with self._lock:
            task = self._tasks[name]
            task.done += count
            if self._bars and task.bar is not None:
                self._bars.update(task.bar, completed=task.done)
            elif time.monotonic() - task.printed >= SECONDS:
                task.printed = time.monotonic()
                print(self._line(name, task.done, task.total), file=self._stream, flush=True)


def report_rows(batches: Iterable[pa.RecordBatch], what: str, total: int) -> Iterator[pa.RecordBatch]:
    """The same batches; how many of `total` rows have passed is reported on standard error."""
    with ProgressReporter(sys.stderr, _row_line, _row_bars) as progress:
        progress.start(what, total)
        for batch in batches:
            yield batch
            progress.advance(what, batch.num_rows)


def download_progress() -> ProgressReporter:
    """Progress in bytes, on standard output."""
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
