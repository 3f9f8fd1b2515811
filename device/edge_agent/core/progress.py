"""How far a long command is: a bar on a terminal, a line now and then elsewhere. On stderr: stdout is the result's."""

from __future__ import annotations

import time
from typing import TextIO

WIDTH = 30
REDRAW_S = 0.1
EVERY_S = 5.0  # between two lines where nobody watches a bar


def size(number: int) -> str:
    """Bytes for a person."""
    if number < 1000:
        return f"{number} bytes"
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"


class Progress:
    """One command's progress on `out`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._open = False  # a bar stands on the terminal's line
        self._next = time.monotonic() + EVERY_S

    def step(self, text: str) -> None:
        """One step begins."""
        self.end()
        print(f"{text} ...", file=self._out, flush=True)

    def bytes(self, done: int, total: int) -> None:
        self._show(done, total, f"{size(done)} of {size(total)}")

    def samples(self, done: int, total: int) -> None:
        self._show(done, total, f"{done} of {total} samples")

    def seconds(self, done: float, total: float, what: str) -> None:
        self._show(int(done), int(total), f"{what}: {done:.0f} of {total:.0f} s")

    def end(self) -> None:
        if self._open:
            print(file=self._out, flush=True)
            self._open = False

    def _show(self, done: int, total: int, text: str) -> None:
        if self._terminal:
            if time.monotonic() < self._next and done < total and self._open:
                return
            self._next = time.monotonic() + REDRAW_S
            filled = WIDTH * min(done, total) // max(total, 1)
            print(f"\r[{'#' * filled}{'.' * (WIDTH - filled)}] {text}\x1b[K", end="", file=self._out, flush=True)
            self._open = True
            if done >= total:
                self.end()
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY_S
            print(text, file=self._out, flush=True)
