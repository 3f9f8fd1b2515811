"""How long the metadata of a repository is good for: a warning before it expires, a refusal after it has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fleet.errors import TrustError
from fleet.releases.repository import ROLES, Repository

# Warned of when so many days are left: online roles are signed by a timer, the others by a person.
SOON = {"root": 30.0, "targets": 14.0, "snapshot": 3.0, "timestamp": 1.0}
RENEW = {
    "root": "fleet keys rotate --role root, or fleet release refresh --root",
    "targets": "fleet release refresh --all",
    "snapshot": "fleet release refresh",
    "timestamp": "fleet release refresh",
}


def days_left(repository: Repository, role: str) -> float:
    """Days until the metadata of a role expires; below zero: since it has."""
    return (repository.role(role).expires - datetime.now(UTC)) / timedelta(days=1)


def warnings(repository: Repository) -> list[str]:
    """What has to be done soon, and that these are development keys."""
    lines = []
    for role, soon in SOON.items():
        left = days_left(repository, role)
        if left < soon:
            when = f"expires in {left:.1f} days" if left > 0 else f"has expired {-left:.1f} days ago"
            lines.append(f"{role} {when}: {RENEW[role]}")
    if repository.development:
        lines.append("development keys: only a fleet that is marked `development: true` takes these releases")
    return lines


def require_current(repository: Repository) -> None:
    """Raises TrustError where metadata has expired."""
    for role in ROLES:
        left = days_left(repository, role)
        if left <= 0:
            raise TrustError(
                f"{repository.metadata}: {role}",
                f"expired {-left:.1f} days ago: no device would take it",
                "current metadata",
                RENEW[role],
            )
