"""Report events of the service to the log and to systemd, and keep the latest events for `edge-agent status`."""

from __future__ import annotations

import collections
import logging
from collections.abc import Iterator

from edge_agent.core import logs, state, systemd

LATEST = 20  # number of events that `edge-agent status` shows


class Events:
    """The latest events of the service. Iterating yields them, oldest first."""

    def __init__(self) -> None:
        self._latest: collections.deque[dict[str, str]] = collections.deque(maxlen=LATEST)

    def __iter__(self) -> Iterator[dict[str, str]]:
        return iter(self._latest)

    def add(self, name: str, message: str, level: int = logging.INFO, **fields: object) -> None:
        """Report one event.

        Args:
            name: The name of the event in the log, such as `loaded`.
            message: A description of the event, for people.
            level: The log level.
            fields: Additional fields of the log record.
        """
        logs.event(name, message, level, **fields)
        systemd.status(message)
        self._latest.append({"time": state.now(), "event": name, "message": message})
