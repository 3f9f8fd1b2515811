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

from edge_agent.core.errors import TrustError

HEX = re.compile(r"[0-9a-f]{8,128}")


def partial_of(info: TargetFile, folder: Path) -> Path:
    """The partial file of a target in `folder`. Raises TrustError where its digest is none."""
    digest = info.hashes.get("sha256", next(iter(info.hashes.values())))
    if not HEX.fullmatch(digest):
        raise TrustError(info.path, f"the digest {digest[:200]!r}", "hexadecimal digits", "publish it again")
    return folder / f".{digest}.partial"


class Validator:
    """What the server said of the version that a partial file is a part of (RFC 9110, 13.1.5), kept beside it."""

    def __init__(self, partial: Path) -> None:
        self.file = partial.with_name(f"{partial.name}.validator")

    def read(self) -> str | None:
        with contextlib.suppress(OSError, ValueError):
            return self.file.read_text(encoding="ascii") or None
        return None

    def write(self, response: urllib3.BaseHTTPResponse) -> None:
        entity = response.headers.get("ETag", "")
        strong = entity if entity.startswith('"') else response.headers.get("Last-Modified", "")
        self.file.write_text(strong, encoding="ascii", errors="ignore")


def discard(partial: Path) -> None:
    """Forget a partial file."""
    partial.unlink(missing_ok=True)
    Validator(partial).file.unlink(missing_ok=True)
