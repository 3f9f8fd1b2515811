"""What a repository of releases offers and has withdrawn, read from its signed metadata and the archives beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_agent.core.errors import AgentError
from edge_agent.storage import archive
from edge_agent.storage.manifest import MANIFEST
from edge_agent.update import trust
from tuf.api.metadata import TargetFile

from fleet.errors import NoReleaseError, VersionError
from fleet.releases.git_tags import parse
from fleet.releases.repository import Repository

SUFFIX, SIGNATURE = ".tar.zst", ".tar.zst.sig"
# Warned of when so many days are left: online roles are signed by a timer, the others by a person.
SOON = {"root": 30.0, "targets": 14.0, "snapshot": 3.0, "timestamp": 1.0}
RENEW = {
    "root": "fleet keys rotate --role root, or fleet release refresh --root",
    "targets": "fleet release refresh --all",
    "snapshot": "fleet release refresh",
    "timestamp": "fleet release refresh",
}
MINE = ("version", "commit", "time", "builder")


@dataclass(frozen=True)
class Release:
    """`state`: published or withdrawn. `metrics`: by target, as the manifest has them; None without the archive."""

    release: str
    state: str
    length: int
    sha256: str
    version: str
    commit: str | None
    time: str
    builder: str
    metrics: dict[str, dict[str, float]] | None
    reason: str | None = None
    withdrawn: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def path_of(name: str, version: str) -> str:
    """The target path of a release, as devices ask for it. Raises VersionError, NoReleaseError."""
    parse(version)
    try:
        return trust.target_path(f"{name}@{version}")
    except AgentError as error:
        raise VersionError(f"{name}@{version}", error.found, error.expected, error.remedy) from None


def released(repository: Repository, name: str) -> dict[str, TargetFile]:
    """The targets that are published under a name, by version."""
    return {
        path.split("/")[1]: target
        for path, target in repository.targets.targets.items()
        if path.startswith(f"{name}/") and path.endswith(SUFFIX)
    }


def withdrawn(repository: Repository, name: str) -> list[str]:
    return [release.partition("@")[2] for release in repository.withdrawn if release.startswith(f"{name}@")]


def listed(repository: Repository) -> list[Release]:
    """All releases, the newest first."""
    found = []
    for path, target in repository.targets.targets.items():
        if path.endswith(SUFFIX):
            name, version, _ = path.split("/")
            found.append(_published(repository, f"{name}@{version}", target))
    for release, entry in repository.withdrawn.items():
        custom = {key: entry["custom"].get(key) for key in MINE}
        told = {"reason": entry["reason"], "withdrawn": entry["time"]}
        found.append(Release(release, "withdrawn", entry["length"], entry["sha256"], **custom, metrics=None, **told))
    return sorted(found, key=lambda each: (each.time, each.release), reverse=True)


def find(repository: Repository, release: str) -> Release:
    """Raises NoReleaseError."""
    for each in listed(repository):
        if each.release == release:
            return each
    raise NoReleaseError(
        release, "not in this repository", "NAME@VERSION, as `fleet release list` has it", "fleet release list"
    )


def _published(repository: Repository, release: str, target: TargetFile) -> Release:
    custom = target.unrecognized_fields.get("custom", {})
    metrics = _metrics(repository.file_of(target))
    fields = {key: custom.get(key) for key in MINE}
    return Release(release, "published", target.length, target.hashes["sha256"], **fields, metrics=metrics)


def _metrics(file: Path) -> dict[str, dict[str, float]] | None:
    """Estimates by target; None where the archive lies elsewhere, as after a clone of the metadata alone."""
    try:
        manifest = json.loads(archive.inspect(file, MANIFEST).wanted)
    except (OSError, AgentError, ValueError):
        return None
    return {
        target: {name: float(estimate["value"]) for name, estimate in described["metrics"]["estimates"].items()}
        for target, described in manifest["targets"].items()
    }


def warnings(repository: Repository) -> list[str]:
    """What has to be done soon, and that these are development keys."""
    found = []
    for role, soon in SOON.items():
        left = repository.days_left(role)
        if left < soon:
            when = f"expires in {left:.1f} days" if left > 0 else f"has expired {-left:.1f} days ago"
            found.append(f"{role} {when}: {RENEW[role]}")
    if repository.development:
        found.append("development keys: only a fleet that is marked `development: true` takes these releases")
    return found
