"""Append lines to an audit log, which records who did what and when.

Each line is one JSON object, which is written durably and never changed. The line is written before the recorded change
becomes visible. Only the replacement of a key is recorded after the change. If a run is killed after it wrote the line
but before it made the change, the line is written again when the run is repeated.
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
    """Return the name of the user on whose behalf this process runs.

    The name comes from the environment variable that AWX, CI or sudo sets. If none of these variables is set, it is the
    name of the user who runs the process. The name is not authenticated, because the user can set these variables
    (docs/explanation/people.md).
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
        action: The name of the recorded action, such as `publish`.
        fields: Further fields of the line. Their values must be valid in JSON.
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
