"""The log of the service: entries for journald if systemd started the process, else `key=value` lines on stderr.

Every entry is an event. The event's name (`EVENT`), the release (`RELEASE`) and other details are separate fields, so
that `journalctl EVENT=rollback` finds every rollback. Entries are sent to journald in its native protocol
(https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).

If a log record names no event, the name of its logger is the name of the event. Loggers have explicit names, so that
events keep their names when a module moves.
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
# The severities of syslog(3), which journald and sd-daemon(3) also use.
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

log = logging.getLogger("edge_agent")


def event(name: str, message: str, level: int = logging.INFO, **fields: object) -> None:
    """Log an event.

    Args:
        name: Name of the event, such as `rollback`.
        message: The text for an operator.
        level: Severity, a level of the module `logging`.
        fields: Further fields of the log entry; fields that are None are omitted.
    """
    present = {key: value for key, value in fields.items() if value is not None}
    log.log(level, message, extra={"fields": {"event": name, **present}})


def setup(journal: str | None = JOURNAL) -> logging.Handler:
    """Send the agent's log records and the warnings of libraries to journald or stderr, and return the log handler.

    `journal` is the path of journald's socket; None selects stderr even if systemd started the process.
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
    """Return whether stderr is connected to journald.

    systemd sets $JOURNAL_STREAM to the device and inode of the stream that it connected to stderr.
    """
    try:
        stream = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"


class Text(logging.Formatter):
    """Format a record as logfmt: `time=... level=info event=loaded message="..." release=digits@1.2.0`."""

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
    """Send each log record to journald as one datagram, or print the record on stderr if sending fails."""

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
        except OSError:  # journald is restarting, or a field is too long for a datagram
            print(self._text.format(record), file=sys.stderr)

    def close(self) -> None:
        self._channel.close()
        super().close()


def _field(name: str, value: object) -> bytes:
    """Encode one field of a log entry in the protocol of journald.

    A value of one line is encoded as `NAME=value`. A value of several lines is preceded by its length.
    """
    data = str(value).encode()
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
