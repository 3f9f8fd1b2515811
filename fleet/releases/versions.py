"""Semantic versions of releases (2.0.0): what is one, and the next one after those that were used."""

from __future__ import annotations

from collections.abc import Iterable

import semver

from fleet.errors import VersionError

FIRST = {"major": "1.0.0", "minor": "0.1.0", "patch": "0.0.1"}


def parse(version: str) -> semver.Version:
    """Raises VersionError for what is not a version of Semantic Versioning 2.0.0."""
    try:
        return semver.Version.parse(version)
    except (ValueError, TypeError):
        raise VersionError(
            f"version {version[:100]!r}", "not a semantic version", "MAJOR.MINOR.PATCH, such as 1.2.0", ""
        ) from None


def bump(versions: Iterable[str], part: str) -> str:
    """The next version after the highest of these, or the first one. `part`: a key of FIRST."""
    known = [parse(version) for version in versions]
    return str(max(known).next_version(part)) if known else FIRST[part]
