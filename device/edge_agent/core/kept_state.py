"""A state that could not be written to state.json, which is kept until it can be written.

It is kept in the run folder, which is in memory (/run). So it applies to every command, and to a service that restarts;
a reboot loses it. If the run folder cannot be written either, the service keeps the state in its own memory.

A kept state replaces one particular content of state.json. If the file has other content, that content is newer, and
the kept state no longer applies.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.core import durable
from edge_agent.core.layout import Layout


@dataclass(frozen=True)
class KeptState:
    """A state that could not be written.

    Attributes:
        content: The content that state.json should have.
        replaces: SHA-256 digest of the content that state.json has.
        reason: The reason why state.json could not be written.
    """

    content: str
    replaces: str
    reason: str


_in_process: dict[Layout, KeptState] = {}


def keep(layout: Layout, kept: KeptState) -> None:
    """Keep a state in the run folder. Raises OSError."""
    durable.make_directory(layout.run)
    durable.write_file(layout.kept_state, json.dumps(asdict(kept)).encode())


def keep_in_process(layout: Layout, kept: KeptState) -> None:
    """Keep a state in the memory of this process, which is the only process to which it then applies."""
    _in_process[layout] = kept


def find(layout: Layout, on_disk: str) -> KeptState | None:
    """Return the kept state that replaces `on_disk`, the content of state.json, or None if there is none."""
    for kept in (_read(layout.kept_state), _in_process.get(layout)):
        if kept is not None and kept.replaces == digest(on_disk):
            return kept
    return None


def discard(layout: Layout) -> None:
    """Forget the kept state, because state.json has been written. Raises OSError."""
    _in_process.pop(layout, None)
    layout.kept_state.unlink(missing_ok=True)


def digest(content: str) -> str:
    """Return the SHA-256 digest of a file's content, in hexadecimal digits."""
    return hashlib.sha256(content.encode()).hexdigest()


def _read(path: Path) -> KeptState | None:
    """Return the kept state in a file. A missing or damaged file is no kept state, and state.json applies."""
    try:
        return KeptState(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
