"""The description of a release that the repository offers. This module does not import the TUF client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Offer:
    """A release that the current metadata of the repository lists.

    Attributes:
        release: The release, as NAME@VERSION.
        name: The name of the release, without its version.
        version: The version of the release.
        path: The archive's path in the repository's list of targets.
        length: Size of the archive in bytes.
        sha256: SHA-256 digest of the archive, in hexadecimal digits.
        custom: Version, commit, publication time and builder of the release, from the repository's metadata.
    """

    release: str
    name: str
    version: str
    path: str
    length: int
    sha256: str
    custom: dict[str, Any]
