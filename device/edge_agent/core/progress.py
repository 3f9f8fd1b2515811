"""Show the progress of a long command: as a bar on a terminal, or as a line of text every few seconds in other output.

The progress is written to stderr, because stdout is for the result of the command.
"""

from __future__ import annotations

import time
from typing import TextIO

WIDTH = 30
REDRAW_S = 0.1
LINE_INTERVAL_S = 5.0  # seconds between two lines if the output is not a terminal


def size(number: int) -> str:
    """Format a number of bytes as text with the unit bytes, kB or MB."""
    if number < 1000:
        return f"{number} bytes"
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"


class Progress:
    """Show the progress of one command on the output stream `out`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._bar_shown = False  # the last line of the terminal is a bar
        self._next = time.monotonic() + LINE_INTERVAL_S

    def step(self, text: str) -> None:
        """Show that the step `text` of the command begins."""
        self.end()
        print(f"{text} ...", file=self._out, flush=True)

    def bytes(self, done: int, total: int) -> None:
        """Show how many of `total` bytes have been processed."""
        self._show(done, total, f"{size(done)} of {size(total)}")

    def samples(self, done: int, total: int) -> None:
        """Show how many of `total` samples have been processed."""
        self._show(done, total, f"{done} of {total} samples")

    def seconds(self, done: float, total: float, what: str) -> None:
        """Show how much time of an operation with a known duration has passed.

        Args:
            done: Time since the start of the operation, in seconds.
            total: Total duration of the operation, in seconds.
            what: Name of the operation, such as "wave 2".
        """
        self._show(int(done), int(total), f"{what}: {done:.0f} of {total:.0f} s")

    def end(self) -> None:
        """End the line of the progress bar, so that later output starts on a new line."""
        if self._bar_shown:
            print(file=self._out, flush=True)
            self._bar_shown = False

    def _show(self, done: int, total: int, text: str) -> None:
        if self._terminal:
            if time.monotonic() < self._next and done < total and self._bar_shown:
                return
            self._next = time.monotonic() + REDRAW_S
            filled = WIDTH * min(done, total) // max(total, 1)
            print(f"\r[{'#' * filled}{'.' * (WIDTH - filled)}] {text}\x1b[K", end="", file=self._out, flush=True)
            self._bar_shown = True
            if done >= total:
                self.end()
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL_S
            print(text, file=self._out, flush=True)
