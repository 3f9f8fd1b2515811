"""The description of a release that the repository offers. Installing it does not require the TUF client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Offer:
    """A release that the current metadata of the repository lists.

    Attributes:
        release: The release, as NAME@VERSION.
        name: Its name.
        version: Its version.
        path: Path of the archive among the repository's targets.
        length: Size of the archive in bytes.
        sha256: Digest of the archive, in hexadecimal digits.
        custom: Version, commit, time and builder, as they were published.
    """

    release: str
    name: str
    version: str
    path: str
    length: int
    sha256: str
    custom: dict[str, Any]
