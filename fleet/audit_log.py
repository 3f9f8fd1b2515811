"""Append lines to an audit log, which records who did what and when.

Each line is one JSON object, which is written durably and never changed. A line is written before the change that it
records becomes visible. The only exception is the replacement of a key. If a run is killed after it wrote the line but
before it made the change, a repeated run writes the line again.
"""

from __future__ import annotations

import getpass
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_agent.core import durable

FILE = "audit.jsonl"


def now() -> str:
    """Return the current time in UTC to the second, ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def current_user() -> str:
    """Return the user's name from AWX, CI or sudo; otherwise the name of the user who runs the process.

    The name is not authenticated, because the user can set these environment variables (docs/explanation/people.md).
    """
    for name in ("FLEET_USER", "GITHUB_ACTOR", "SUDO_USER"):
        if os.environ.get(name):
            return os.environ[name]
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user id has no name, for example in a container
        return f"uid {os.getuid()}"


def append(file: Path, action: str, **fields: Any) -> None:
    """Append one line to an audit log, durably. Raises OSError.

    Args:
        file: The audit log. It is created if it is missing.
        action: The name of the action.
        fields: Further fields of the line, as JSON values.
    """
    durable.make_directory(file.parent)
    line = json.dumps({"time": now(), "by": current_user(), "action": action, **fields}, allow_nan=False) + "\n"
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        is_incomplete = size and os.pread(descriptor, 1, size - 1) != b"\n"  # after a power cut
        os.write(descriptor, (b"\n" if is_incomplete else b"") + line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    durable.sync_directory(file.parent)
