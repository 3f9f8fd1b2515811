"""Compute the parts of an output separately, so that a part that fails is left out and the other parts remain."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

log = logging.getLogger("edge_agent.parts")  # the logger's name becomes the event of its log records

T = TypeVar("T")


class Parts:
    """The parts of one output, such as the metrics.

    `failed` has, for each part that was computed so far, whether it failed when it was last computed.
    """

    def __init__(self, output: str) -> None:
        self.output = output
        self.failed: dict[str, bool] = {}
        self._logged: set[str] = set()

    def compute(self, part: str, function: Callable[[], T]) -> T | None:
        """Return `function()`, or None if it raises an exception. The first exception of each part is logged."""
        try:
            value = function()
        except Exception:  # whatever is wrong with one part, the other parts are still needed
            self.failed[part] = True
            if part not in self._logged:
                self._logged.add(part)
                log.exception("the part %r of the %s failed; it is left out", part, self.output)
            return None
        self.failed[part] = False
        return value
