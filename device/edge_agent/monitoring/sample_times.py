"""The times of captured samples, also of samples that were captured before the device's clock was right.

Many devices have no clock that runs while they are switched off. After a boot, their clock shows a wrong time, such as
1970, until a time server sets it. So each sample also has the boot during which it was captured, and the time since
that boot. If the clock was set later during the same boot, the difference gives the right time of the sample.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

# A clock that shows an earlier time than this has not been set, because there was no agent then.
EARLIEST = datetime(2025, 1, 1, tzinfo=timezone.utc)
# A clock that a time server corrects in small steps, as it does all the time, is right within this time.
RIGHT_WITHIN = timedelta(seconds=2)


def stamp() -> dict[str, Any]:
    """Return the fields of a sample that state when it was captured.

    `time` is the time of the device's clock, `boot` is the id of the boot (None if the kernel does not provide it), and
    `uptime_s` is the number of seconds since the boot.
    """
    return {
        "time": datetime.now(timezone.utc).isoformat(),
        "boot": _boot_id(),
        "uptime_s": time.clock_gettime(time.CLOCK_BOOTTIME),
    }


class SampleTimes:
    """The times at which samples were captured. `add` each sample in the order of capture, and then call `find`."""

    def __init__(self) -> None:
        self._booted: dict[str, datetime] = {}  # the time of each boot, by the clock's latest right time

    def add(self, sample: Mapping[str, Any]) -> None:
        """Learn the time of a boot from the fields of a sample, or from a `stamp` of the present."""
        shown, boot = datetime.fromisoformat(sample["time"]), sample.get("boot")
        if boot is not None and shown >= EARLIEST:
            self._booted[boot] = shown - timedelta(seconds=sample["uptime_s"])

    def find(self, sample: Mapping[str, Any]) -> datetime | None:
        """Return the time at which a sample was captured, or None if it is unknown."""
        shown, booted = datetime.fromisoformat(sample["time"]), self._booted.get(sample.get("boot") or "")
        if booted is not None:
            right = booted + timedelta(seconds=sample["uptime_s"])
            if abs(right - shown) > RIGHT_WITHIN:
                return right
        return shown if shown >= EARLIEST else None


@functools.cache
def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
