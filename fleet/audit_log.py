"""What was done, when and by whom: one JSON object a line, appended and flushed, never changed.

A line is written before what it tells of is visible (a key's replacement excepted): a run that is killed in between
and run again writes it twice.
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
    """This second in UTC, ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def who() -> str:
    """The name that the platform gives: of AWX's user, of CI's, of whoever called sudo, of the process's owner.

    A record, and no proof: whoever starts the process may set these variables (docs/explanation/people.md).
    """
    for name in ("FLEET_USER", "GITHUB_ACTOR", "SUDO_USER"):
        if os.environ.get(name):
            return os.environ[name]
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in a container
        return f"uid {os.getuid()}"


def append(file: Path, action: str, **what: Any) -> None:
    """Raises OSError."""
    durable.make_directory(file.parent)
    line = json.dumps({"time": now(), "by": who(), "action": action, **what}, allow_nan=False) + "\n"
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        torn = size and os.pread(descriptor, 1, size - 1) != b"\n"  # a power cut left half a line: it keeps its own
        os.write(descriptor, (b"\n" if torn else b"") + line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    durable.sync_directory(file.parent)
