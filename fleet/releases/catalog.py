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
from fleet.releases.repository import Repository
from fleet.releases.versions import parse

SUFFIX, SIGNATURE = ".tar.zst", ".tar.zst.sig"
CUSTOM, WITHDRAWN = "custom", "x-withdrawn"
CUSTOM_FIELDS = ("version", "commit", "time", "builder")


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


def target_path(name: str, version: str) -> str:
    """The target path of a release, as devices ask for it. Raises VersionError, NoReleaseError."""
    parse(version)
    try:
        return trust.target_path(f"{name}@{version}")
    except AgentError as error:
        raise VersionError(f"{name}@{version}", error.found, error.expected, error.remedy) from None


def published_targets(repository: Repository, name: str) -> dict[str, TargetFile]:
    """The targets that are published under a name, by version."""
    return {
        path.split("/")[1]: target
        for path, target in repository.targets.targets.items()
        if path.startswith(f"{name}/") and path.endswith(SUFFIX)
    }


def withdrawals(repository: Repository) -> dict[str, dict[str, Any]]:
    """Release -> reason, time, length, sha256, custom. It is part of what the targets role signs."""
    entries: dict[str, dict[str, Any]] = repository.targets.unrecognized_fields.setdefault(WITHDRAWN, {})
    return entries


def withdrawn_versions(repository: Repository, name: str) -> list[str]:
    """The versions that were withdrawn under a name."""
    return [release.partition("@")[2] for release in withdrawals(repository) if release.startswith(f"{name}@")]


def withdraw(repository: Repository, release: str, reason: str, time: str) -> None:
    """Delist a release that is published; nobody sees it before `Repository.write`."""
    path = target_path(*release.split("@"))
    target = repository.targets.targets.pop(path)
    repository.targets.targets.pop(path.removesuffix(SUFFIX) + SIGNATURE, None)
    withdrawals(repository)[release] = {
        "reason": reason,
        "time": time,
        "length": target.length,
        "sha256": target.hashes["sha256"],
        "custom": target.unrecognized_fields.get(CUSTOM, {}),
    }


def list_releases(repository: Repository) -> list[Release]:
    """All releases, the newest first."""
    found = []
    for path, target in repository.targets.targets.items():
        if path.endswith(SUFFIX):
            name, version, _ = path.split("/")
            found.append(_published(repository, f"{name}@{version}", target))
    for release, entry in withdrawals(repository).items():
        custom = {key: entry["custom"].get(key) for key in CUSTOM_FIELDS}
        told = {"reason": entry["reason"], "withdrawn": entry["time"]}
        found.append(Release(release, "withdrawn", entry["length"], entry["sha256"], **custom, metrics=None, **told))
    return sorted(found, key=lambda each: (each.time, each.release), reverse=True)


def find_release(repository: Repository, release: str) -> Release:
    """Raises NoReleaseError."""
    for each in list_releases(repository):
        if each.release == release:
            return each
    raise NoReleaseError(
        release, "not in this repository", "NAME@VERSION, as `fleet release list` has it", "fleet release list"
    )


def _published(repository: Repository, release: str, target: TargetFile) -> Release:
    custom = target.unrecognized_fields.get(CUSTOM, {})
    metrics = _metrics(repository.local_file(target))
    fields = {key: custom.get(key) for key in CUSTOM_FIELDS}
    return Release(release, "published", target.length, target.hashes["sha256"], **fields, metrics=metrics)


def _metrics(file: Path) -> dict[str, dict[str, float]] | None:
    """Estimates by target; None where the archive lies elsewhere, as after a clone of the metadata alone."""
    try:
        manifest = json.loads(archive.inspect(file, MANIFEST).member)
    except (OSError, AgentError, ValueError):
        return None
    return {
        target: {name: float(estimate["value"]) for name, estimate in described["metrics"]["estimates"].items()}
        for target, described in manifest["targets"].items()
    }
