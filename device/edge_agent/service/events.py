"""What happened to the service: into the log, to systemd, and the last of it for `edge-agent status`."""

from __future__ import annotations

import collections
import logging
from collections.abc import Iterator

from edge_agent.core import logs, state, systemd

LAST = 20  # how many `edge-agent status` shows


class Events:
    """The events of one service, oldest first; iterates over the last ones."""

    def __init__(self) -> None:
        self._last: collections.deque[dict[str, str]] = collections.deque(maxlen=LAST)

    def __iter__(self) -> Iterator[dict[str, str]]:
        return iter(self._last)

    def add(self, name: str, message: str, level: int = logging.INFO, **fields: object) -> None:
        """Report one event. `fields` belong to it in the log."""
        logs.event(name, message, level, **fields)
        systemd.status(message)
        self._last.append({"time": state.now(), "event": name, "message": message})
