"""How long a training took: wall time, added up over the runs that were killed and the one that ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from stages.core.files import write_json, write_text


class Stopwatch:
    """Wall time of a run in seconds, with that of earlier runs that it resumes from."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Start.

        Args:
            path: Where the time is kept between runs, beside the checkpoint.
            clock: The time now in seconds.
        """
        self._path, self._clock = path, clock
        self._earlier = self._read()
        self._start = clock()

    def _read(self) -> float:
        """Return the seconds of earlier runs; 0 where there are none, or where the file is not readable."""
        try:
            return float(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0.0

    @property
    def seconds(self) -> float:
        """The time up to now."""
        return self._earlier + self._clock() - self._start

    def save(self) -> None:
        """Keep the time up to now, for a run that resumes. Call it with each checkpoint."""
        write_text(self._path, f"{self.seconds:.3f}")


def write_duration(path: Path, seconds: float) -> None:
    """Write the report on a duration.

    It is an output of its stage that no later stage's result depends on: times differ from run to run, and a bundle
    must not.
    """
    write_json(path, {"seconds": round(seconds, 3)})
