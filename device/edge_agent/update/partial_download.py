"""The partial file of a download, which is resumed after an interruption, a crash or a power cut.

Its name contains the digest of the complete file, so that the download of another version never continues in it. Its
content is not trusted until the complete file is verified.
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
    """The partial file of one target, with a second file for the validator of the version on the server.

    The validator (RFC 9110, section 13.1.5) is an entity tag or a date of modification.
    """

    def __init__(self, info: TargetFile, folder: Path) -> None:
        """Name the partial file of the target `info` in `folder`.

        Raises TrustError where the digest in the metadata is invalid.
        """
        digest = info.hashes.get("sha256", next(iter(info.hashes.values())))
        if not HEX.fullmatch(digest):
            raise TrustError(info.path, f"the digest {digest[:200]!r}", "hexadecimal digits", "publish it again")
        self.path = folder / f".{digest}.partial"
        self._validator = folder / f"{self.path.name}.validator"

    def remove_others(self) -> None:
        """Remove the partial files of other targets, which would use its disk space."""
        resumable = self.path.is_file()
        for other in self.path.parent.glob(".*.partial*"):
            if not resumable or not other.name.startswith(self.path.name):
                other.unlink()

    def read_validator(self) -> str | None:
        """Return the stored validator, or None."""
        with contextlib.suppress(OSError, ValueError):
            return self._validator.read_text(encoding="ascii") or None
        return None

    def write_validator(self, response: urllib3.BaseHTTPResponse) -> None:
        """Store the strong validator of a response; a response without one leaves an empty file."""
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
