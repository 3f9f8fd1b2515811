"""Warn before the metadata of a repository of releases expires, and refuse expired metadata."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fleet.errors import TrustError
from fleet.releases.repository import ROLES, Repository

# Days before expiry at which warnings start. They start earlier for root and targets, which a person has to sign.
WARNING_DAYS = {"root": 30.0, "targets": 14.0, "snapshot": 3.0, "timestamp": 1.0}
RENEW = {
    "root": "fleet keys rotate --role root, or fleet release refresh --root",
    "targets": "fleet release refresh --all",
    "snapshot": "fleet release refresh",
    "timestamp": "fleet release refresh",
}


def days_left(repository: Repository, role: str) -> float:
    """Return the number of days until the metadata of a role expires. After the expiry, the number is negative."""
    return (repository.role(role).expires - datetime.now(UTC)) / timedelta(days=1)


def warnings(repository: Repository) -> list[str]:
    """Return warnings about roles whose metadata expires soon or has expired, and about development keys."""
    lines = []
    for role, limit in WARNING_DAYS.items():
        days = days_left(repository, role)
        if days < limit:
            when = f"expires in {days:.1f} days" if days > 0 else f"expired {-days:.1f} days ago"
            lines.append(f"{role} {when}: {RENEW[role]}")
    if repository.development:
        lines.append("development keys: only a fleet that is marked `development: true` accepts these releases")
    return lines


def require_current(repository: Repository) -> None:
    """Check that the metadata of every role is still valid. Raises TrustError if the metadata of a role has expired."""
    for role in ROLES:
        days = days_left(repository, role)
        if days <= 0:
            raise TrustError(
                f"{repository.metadata}: {role}",
                f"expired {-days:.1f} days ago, so every device would refuse it",
                "metadata that has not expired",
                f"run {RENEW[role]}",
            )
