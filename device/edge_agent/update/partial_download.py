"""The file that a target is downloaded into, and goes on in after a break, a kill or a power cut.

It is named by the digest of what it is to become: another version never goes on in it. What is in it is worth nothing
until all of it is verified.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import urllib3
from tuf.api.metadata import TargetFile

from edge_agent.core import durable
from edge_agent.core.errors import TrustError
from edge_agent.core.fault_points import point

HEX = re.compile(r"[0-9a-f]{8,128}")


class PartialFile:
    """The partial file of one target, and beside it what the server said of the version that it is a part of
    (its validator: RFC 9110, 13.1.5).
    """

    def __init__(self, info: TargetFile, folder: Path) -> None:
        """Raises TrustError where the target's digest is not a digest."""
        digest = info.hashes.get("sha256", next(iter(info.hashes.values())))
        if not HEX.fullmatch(digest):
            raise TrustError(info.path, f"the digest {digest[:200]!r}", "hexadecimal digits", "publish it again")
        self.path = folder / f".{digest}.partial"
        self._validator = folder / f"{self.path.name}.validator"

    def remove_others(self) -> None:
        """Remove the partial files of other targets, which would take its room."""
        begun = self.path.is_file()
        for other in self.path.parent.glob(".*.partial*"):
            if not begun or not other.name.startswith(self.path.name):
                other.unlink()

    def read_validator(self) -> str | None:
        """What `write_validator` kept, or None."""
        with contextlib.suppress(OSError, ValueError):
            return self._validator.read_text(encoding="ascii") or None
        return None

    def write_validator(self, response: urllib3.BaseHTTPResponse) -> None:
        """Keep the strong validator of an answer; an answer without one leaves an empty file."""
        entity = response.headers.get("ETag", "")
        strong = entity if entity.startswith('"') else response.headers.get("Last-Modified", "")
        self._validator.write_text(strong, encoding="ascii", errors="ignore")

    def complete(self, destination: Path) -> None:
        """Rename the verified and flushed file to `destination`, durably."""
        point("download.before_rename")
        self.path.replace(destination)
        point("download.after_rename")
        durable.sync_directory(destination.parent)
        self.discard()

    def discard(self) -> None:
        """Remove the partial file and its validator."""
        self.path.unlink(missing_ok=True)
        self._validator.unlink(missing_ok=True)
