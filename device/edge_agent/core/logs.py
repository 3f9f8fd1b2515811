"""What the service says: to journald with fields where it started us, else one `key=value` line each on stderr.

Every line is an event: `RELEASE`, `EVENT` and what else belongs to it are fields, which `journalctl EVENT=rollback`
finds. The native protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.

A record that names no event has its logger's name in the place of one. So loggers of the service are named by hand:
a module that moves keeps its event.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
from datetime import datetime, timezone
from pathlib import Path

JOURNAL = "/run/systemd/journal/socket"
# syslog(3) severities, which journald and sd-daemon(3) share.
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

log = logging.getLogger("edge_agent")


def event(name: str, message: str, level: int = logging.INFO, **fields: object) -> None:
    """Log `message` as the event `name`, with fields. Fields that are None are left out."""
    given = {key: value for key, value in fields.items() if value is not None}
    log.log(level, message, extra={"fields": {"event": name, **given}})


def setup(journal: str | None = JOURNAL) -> logging.Handler:
    """Send what `log`, and warnings of libraries, say to where they are read; `journal` None: never to journald.

    Returns the handler.
    """
    handler: logging.Handler
    if journal is not None and _in_journal() and Path(journal).exists():
        handler = Journal(journal)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    return handler


def _in_journal() -> bool:
    """Whether stderr is journald's stream: systemd names its device and inode in $JOURNAL_STREAM."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class Text(logging.Formatter):
    """`time=... level=info event=loaded message="..." release=digits@1.2.0`: logfmt (values quoted if needed)."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        parts = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": fields.pop("event", record.name),
            "message": message,
        }
        return " ".join(f"{key}={_quoted(value)}" for key, value in {**parts, **fields}.items())


def _quoted(value: object) -> str:
    text = str(value)
    plain = text and all(character.isprintable() and character not in ' "=\\' for character in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


class Journal(logging.Handler):
    """journald's own protocol: one datagram of fields for each record. What it does not take goes to stderr."""

    def __init__(self, address: str = JOURNAL) -> None:
        super().__init__()
        self._address = address
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._text = Text()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self._text.formatException(record.exc_info)
        fields = {
            "MESSAGE": message,
            "PRIORITY": PRIORITIES.get(record.levelno, 6),
            "SYSLOG_IDENTIFIER": "edge-agent",
            **{name.upper(): value for name, value in getattr(record, "fields", {}).items()},
        }
        try:
            self._channel.sendto(b"".join(_field(name, value) for name, value in fields.items()), self._address)
        except OSError:  # journald restarts, or a field is too long for a datagram
            print(self._text.format(record), file=sys.stderr)

    def close(self) -> None:
        self._channel.close()
        super().close()


def _field(name: str, value: object) -> bytes:
    """`NAME=value`, or with its length where the value has more lines."""
    data = str(value).encode()
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
