"""Measure the wall time of training. If a run resumes a killed run, the time of the killed run is included."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from stages.core.files import write_json, write_text


class Stopwatch:
    """Measures the wall time of a training run in seconds. If the run resumes killed runs, their time is included."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the stopwatch.

        Args:
            path: The file in which the measured time is stored, so that a run that resumes this run can include the
                time. The file is next to the checkpoint.
            clock: Function that returns the current time in seconds.
        """
        self._path, self._clock = path, clock
        self._earlier = self._read()
        self._start = clock()

    def _read(self) -> float:
        """Return the time of earlier runs in seconds; 0 if the file is missing or not readable."""
        try:
            return float(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0.0

    @property
    def seconds(self) -> float:
        """The time measured so far in seconds, including the time of earlier runs."""
        return self._earlier + self._clock() - self._start

    def save(self) -> None:
        """Write the time measured so far to the file. Call this method whenever a checkpoint is saved."""
        write_text(self._path, f"{self.seconds:.3f}")


def write_duration(path: Path, seconds: float) -> None:
    """Write the duration of a stage to a report.

    Durations differ from run to run, but the bundle must always have the same bytes. Therefore the duration is in a
    separate file, which does not affect the result of any later stage.
    """
    write_json(path, {"seconds": round(seconds, 3)})
