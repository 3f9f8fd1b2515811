"""The name of a release, NAME@VERSION: the one grammar of the command line, slots, the repository and inventories.

NAME is defined by manifest.schema.json, VERSION by Semantic Versioning 2.0 (https://semver.org, its own expression).
"""

from __future__ import annotations

import re
from typing import Any

LONGEST = 120  # the name of a folder is made of it, with a prefix and a suffix
EXPECTED = f"NAME@VERSION of at most {LONGEST} characters, such as digits@1.2.0"
RELEASE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]*)@"
    r"(?P<version>(?P<major>0|[1-9]\d*)\.(?P<minor>0|[1-9]\d*)\.(?P<patch>0|[1-9]\d*)"
    r"(?:-(?P<prerelease>(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?)",
    re.ASCII,
)


def parse_release(text: str) -> re.Match[str] | None:
    """Return a match with the groups `name` and `version`, or None where `text` is not the name of a release."""
    return RELEASE.fullmatch(text) if len(text) <= LONGEST else None


def precedence(release: str) -> tuple[Any, ...]:
    """Return a sort key by the precedence of Semantic Versioning 2.0, section 11.

    Numbers are compared as numbers, and a pre-release comes before its release.
    """
    match = parse_release(release)
    assert match is not None
    numbers = tuple(int(match[part]) for part in ("major", "minor", "patch"))
    prerelease = match["prerelease"]
    parts = [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in prerelease.split(".")] if prerelease else []
    return (*numbers, prerelease is None, parts, release)
