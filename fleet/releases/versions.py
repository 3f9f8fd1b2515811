"""Semantic versions of releases (semver.org 2.0.0): parse a version, and choose the next one."""

from __future__ import annotations

from collections.abc import Iterable

import semver

from fleet.errors import VersionError

FIRST = {"major": "1.0.0", "minor": "0.1.0", "patch": "0.0.1"}


def parse_version(version: str) -> semver.Version:
    """Parse a version. Raises VersionError if it does not follow Semantic Versioning 2.0.0."""
    try:
        return semver.Version.parse(version)
    except (ValueError, TypeError):
        raise VersionError(
            f"version {version[:100]!r}",
            "not a semantic version",
            "MAJOR.MINOR.PATCH, such as 1.2.0",
            "correct the version",
        ) from None


def next_version(versions: Iterable[str], part: str) -> str:
    """Increment the highest of `versions`, or return the first version if `versions` is empty.

    `part` is the part of the version to increment: major, minor or patch.
    """
    parsed = [parse_version(version) for version in versions]
    return str(max(parsed).next_version(part)) if parsed else FIRST[part]
