"""Measure how long training takes: the wall time of the run that completes and of the killed runs it resumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from stages.core.files import write_json, write_text


class Stopwatch:
    """Measures the wall time of a run in seconds, including the earlier runs that it resumes."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the stopwatch.

        Args:
            path: The file that keeps the time between runs, beside the checkpoint.
            clock: Returns the current time in seconds.
        """
        self._path, self._clock = path, clock
        self._earlier = self._read()
        self._start = clock()

    def _read(self) -> float:
        """Return the seconds of earlier runs; 0 if there are none, or if the file is not readable."""
        try:
            return float(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0.0

    @property
    def seconds(self) -> float:
        """The time so far."""
        return self._earlier + self._clock() - self._start

    def save(self) -> None:
        """Write the time so far, for a run that resumes this one. Call it with each checkpoint."""
        write_text(self._path, f"{self.seconds:.3f}")


def write_duration(path: Path, seconds: float) -> None:
    """Write the report of a stage's duration.

    It has a file to itself, on which the result of no later stage depends: durations differ from run to run, and
    bundles must not.
    """
    write_json(path, {"seconds": round(seconds, 3)})
