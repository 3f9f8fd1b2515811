"""The syntax of release names, NAME@VERSION, on the command line and in slots, the repository and inventories.

manifest.schema.json defines NAME. Semantic Versioning 2.0 defines VERSION (https://semver.org has the regular
expression that is used here).
"""

from __future__ import annotations

import re
from typing import Any

LONGEST = 120  # a folder's name is the release with a prefix and a suffix, and file systems allow 255 bytes
EXPECTED = f"NAME@VERSION of at most {LONGEST} characters, such as digits@1.2.0"
RELEASE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]*)@"
    r"(?P<version>(?P<major>0|[1-9]\d*)\.(?P<minor>0|[1-9]\d*)\.(?P<patch>0|[1-9]\d*)"
    r"(?:-(?P<prerelease>(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?)",
    re.ASCII,
)


def parse_release(text: str) -> re.Match[str] | None:
    """Return a match with the groups `name` and `version`, or None if `text` is not the name of a release."""
    return RELEASE.fullmatch(text) if len(text) <= LONGEST else None


def precedence(release: str) -> tuple[Any, ...]:
    """Return a key that sorts versions by their precedence (Semantic Versioning 2.0, section 11).

    Numbers are compared as numbers, and a pre-release comes before its release.
    """
    match = parse_release(release)
    assert match is not None
    numbers = tuple(int(match[part]) for part in ("major", "minor", "patch"))
    prerelease = match["prerelease"]
    parts = [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in prerelease.split(".")] if prerelease else []
    return (*numbers, prerelease is None, parts, release)
