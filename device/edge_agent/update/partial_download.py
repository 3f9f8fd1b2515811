"""The partial file of a download, from which the download is resumed after an interruption, a crash or a power cut.

The name of the partial file contains the digest of the complete file, so that a download of another version never
continues this file. The content of the partial file is not trusted until the complete file is verified.
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
    """The partial file of one target, and a second file that stores the validator of the server's response.

    The validator (RFC 9110, section 13.1.5) identifies the version of the file on the server. It is an entity tag or
    the date of the last modification.
    """

    def __init__(self, info: TargetFile, folder: Path) -> None:
        """Set the path of the partial file of the target `info` in `folder`.

        Raises TrustError if the digest in the metadata is invalid.
        """
        digest = info.hashes.get("sha256", next(iter(info.hashes.values())))
        if not HEX.fullmatch(digest):
            raise TrustError(
                info.path, f"the digest {digest[:200]!r}", "a digest in hexadecimal digits", "publish the release again"
            )
        self.path = folder / f".{digest}.partial"
        self._validator = folder / f"{self.path.name}.validator"

    def remove_others(self) -> None:
        """Remove the partial files of other targets, because this download may need their disk space."""
        resumable = self.path.is_file()
        for other in self.path.parent.glob(".*.partial*"):
            if not resumable or not other.name.startswith(self.path.name):
                other.unlink()

    def read_validator(self) -> str | None:
        """Return the stored validator, or None if no validator is stored."""
        with contextlib.suppress(OSError, ValueError):
            return self._validator.read_text(encoding="ascii") or None
        return None

    def write_validator(self, response: urllib3.BaseHTTPResponse) -> None:
        """Store the strong validator of a response, or an empty file if the response has none."""
        entity = response.headers.get("ETag", "")
        strong = entity if entity.startswith('"') else response.headers.get("Last-Modified", "")
        self._validator.write_text(strong, encoding="ascii", errors="ignore")

    def complete(self, destination: Path) -> None:
        """Rename the partial file to `destination`, and flush the rename to the disk.

        The caller has verified the file and flushed its content.
        """
        point("download.before_rename")
        self.path.replace(destination)
        point("download.after_rename")
        durable.sync_directory(destination.parent)
        self.discard()

    def discard(self) -> None:
        """Remove the partial file and its validator."""
        self.path.unlink(missing_ok=True)
        self._validator.unlink(missing_ok=True)
