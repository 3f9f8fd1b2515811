"""What is on its way: a bar per source on a terminal, else a plain line of a source every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

QUIET_S = 5.0


class Progress:
    """Bytes per source. Called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes: dict[str, tuple[int, int | None]] = {}
        self._said: dict[str, float] = {}
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        if sys.stdout.isatty():
            from rich import progress

            self._bars = progress.Progress(
                "{task.description}",
                progress.BarColumn(),
                progress.DownloadColumn(),
                progress.TransferSpeedColumn(),
                progress.TimeRemainingColumn(),
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def start(self, name: str, total: int | None, have: int = 0) -> None:
        """A file of `total` bytes comes, or comes again; `have` of them are here."""
        with self._lock:
            self._bytes[name] = (have, total)
            self._said.setdefault(name, time.monotonic())
            if self._bars:
                if name not in self._tasks:
                    self._tasks[name] = self._bars.add_task(name)
                self._bars.update(self._tasks[name], total=total, completed=have)

    def advance(self, name: str, count: int) -> None:
        """`count` bytes more are here."""
        with self._lock:
            done, total = self._bytes.get(name, (0, None))
            done += count
            self._bytes[name] = (done, total)
            if self._bars:
                self._bars.update(self._tasks[name], completed=done)
            elif time.monotonic() - self._said[name] > QUIET_S:
                self._said[name] = time.monotonic()
                share = f" of {total / 1e6:.1f} MB ({done / total:.0%})" if total else " MB"
                print(f"{name}: {done / 1e6:.1f}{share}", flush=True)
