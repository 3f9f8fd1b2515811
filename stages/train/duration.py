"""Measure the wall time of training, including the time of killed runs that a later run resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from stages.core.files import write_json, write_text


class Stopwatch:
    """Measures the wall time of a run in seconds, including the killed runs that it resumes."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the stopwatch.

        Args:
            path: The file that stores the measured time for the next run. It is next to the checkpoint.
            clock: Function that returns the current time in seconds.
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
        """The seconds measured so far, including the seconds of earlier runs."""
        return self._earlier + self._clock() - self._start

    def save(self) -> None:
        """Write the time so far to the file. Call this method whenever a checkpoint is saved."""
        write_text(self._path, f"{self.seconds:.3f}")


def write_duration(path: Path, seconds: float) -> None:
    """Write the report of a stage's duration.

    Durations differ from run to run, but the bundle must not. Therefore the duration is in a separate file, which does
    not affect the result of any later stage.
    """
    write_json(path, {"seconds": round(seconds, 3)})
