"""Parse and compare the names of releases, which have the form NAME@VERSION.

The command line, the folders of installed releases, the repository of releases and the inventories use the same form.
manifest.schema.json defines NAME. Semantic Versioning 2.0 defines VERSION (https://semver.org has the regular
expression that is used here).
"""

from __future__ import annotations

import re
from typing import Any

LONGEST = 120  # a folder's name is the release name with a prefix and a suffix, and file systems allow 255 bytes
EXPECTED = f"NAME@VERSION of at most {LONGEST} characters, such as digits@1.2.0"
RELEASE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]*)@"
    r"(?P<version>(?P<major>0|[1-9]\d*)\.(?P<minor>0|[1-9]\d*)\.(?P<patch>0|[1-9]\d*)"
    r"(?:-(?P<prerelease>(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?)",
    re.ASCII,
)


def parse_release(text: str) -> re.Match[str] | None:
    """Parse the name of a release, and return a match with the groups `name` and `version`.

    Return None if `text` is not a valid name of a release.
    """
    return RELEASE.fullmatch(text) if len(text) <= LONGEST else None


def precedence(release: str) -> tuple[Any, ...]:
    """Return a sort key that orders releases by the precedence of their versions (Semantic Versioning 2.0, section 11).

    Numbers are compared as numbers. A pre-release such as 1.2.0-rc.1 comes before 1.2.0.
    """
    match = parse_release(release)
    assert match is not None
    numbers = tuple(int(match[part]) for part in ("major", "minor", "patch"))
    prerelease = match["prerelease"]
    parts = [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in prerelease.split(".")] if prerelease else []
    return (*numbers, prerelease is None, parts, release)
