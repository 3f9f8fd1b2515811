"""The name of a release, NAME@VERSION: the one grammar of the command line, slots, the repository and inventories.

NAME as manifest.schema.json has it, VERSION as Semantic Versioning 2.0 has it (https://semver.org, its own expression).
"""

from __future__ import annotations

import re
from typing import Any

LONGEST = 120  # it becomes the name of a folder, with a prefix and a suffix
EXPECTED = f"NAME@VERSION of at most {LONGEST} characters, such as digits@1.2.0"
RELEASE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]*)@"
    r"(?P<version>(?P<major>0|[1-9]\d*)\.(?P<minor>0|[1-9]\d*)\.(?P<patch>0|[1-9]\d*)"
    r"(?:-(?P<before>(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?)",
    re.ASCII,
)


def parse_release(text: str) -> re.Match[str] | None:
    """The parts `name` and `version` of a release, or None where `text` names none."""
    return RELEASE.fullmatch(text) if len(text) <= LONGEST else None


def precedence(release: str) -> tuple[Any, ...]:
    """Precedence of Semantic Versioning 2.0, section 11: numbers as numbers, a pre-release before its release."""
    found = parse_release(release)
    assert found is not None
    numbers = tuple(int(found[part]) for part in ("major", "minor", "patch"))
    before = found["before"]
    parts = [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in before.split(".")] if before else []
    return (*numbers, before is None, parts, release)
