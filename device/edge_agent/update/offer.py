"""A release as the repository offers it. Free of heavy imports: what installs an offer needs no TUF client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Offer:
    """A release as the current metadata vouches for it. `custom`: version, commit, time and builder, as published."""

    release: str
    name: str
    version: str
    path: str
    length: int
    sha256: str
    custom: dict[str, Any]
