"""List, find and withdraw releases, using a repository's signed metadata and its archives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from edge_agent.core.errors import AgentError
from edge_agent.storage import archive
from edge_agent.storage.manifest import MANIFEST
from edge_agent.update import trust
from pydantic import BaseModel, ConfigDict, Field
from tuf.api.metadata import TargetFile

from fleet.errors import NoReleaseError, VersionError
from fleet.releases.repository import Repository
from fleet.releases.versions import parse_version

SUFFIX, SIGNATURE = ".tar.zst", ".tar.zst.sig"
CUSTOM, WITHDRAWN = "custom", "x-withdrawn"


class Provenance(BaseModel):
    """The origin of a release: its version, commit, publication time and builder.

    It is stored in the signed `custom` field of the release's target.
    """

    model_config = ConfigDict(frozen=True)

    version: str | None = Field(default=None, description="Semantic version of the release.")
    commit: str | None = Field(default=None, description="Commit that the bundle was built from; null if unknown.")
    time: str | None = Field(default=None, description="Time of publication, ISO 8601 in UTC.")
    builder: str | None = Field(default=None, description="Builder that signed the bundle: `key:ID` or an identity.")


class Release(BaseModel):
    """A published or withdrawn release in a repository, as `fleet release` prints it."""

    model_config = ConfigDict(frozen=True)

    release: str = Field(description="Name and version, NAME@VERSION.")
    state: str = Field(description="`published` or `withdrawn`.")
    length: int = Field(description="Size of the archive in bytes.")
    sha256: str = Field(description="SHA-256 of the archive, hexadecimal.")
    version: str | None = Field(description="Semantic version.")
    commit: str | None = Field(description="Commit that the bundle was built from; null if unknown.")
    time: str | None = Field(description="Time of publication, ISO 8601 in UTC.")
    builder: str | None = Field(description="Builder that signed the bundle: `key:ID` or an identity.")
    metrics: dict[str, dict[str, float]] | None = Field(
        description="Metrics by target, from the manifest; null if the archive is not stored locally."
    )
    reason: str | None = Field(default=None, description="Reason for the withdrawal.")
    withdrawn: str | None = Field(default=None, description="Time of the withdrawal, ISO 8601 in UTC.")


class Withdrawal(TypedDict):
    """The record of a withdrawn release, which is stored in the signed field `x-withdrawn` of the targets metadata."""

    reason: str
    time: str
    length: int
    sha256: str
    custom: Mapping[str, str | None]


def target_path(name: str, version: str) -> str:
    """Return the path under which devices request a release from the repository.

    Raises VersionError if the name or the version is not valid.
    """
    parse_version(version)
    try:
        return trust.target_path(f"{name}@{version}")
    except AgentError as error:
        raise VersionError(f"{name}@{version}", error.found, error.expected, error.remedy) from None


def published_targets(repository: Repository, name: str) -> dict[str, TargetFile]:
    """Return the target of each published version of a bundle, by version."""
    return {
        path.split("/")[1]: target
        for path, target in repository.targets.targets.items()
        if path.startswith(f"{name}/") and path.endswith(SUFFIX)
    }


def withdrawals(repository: Repository) -> dict[str, Withdrawal]:
    """Return the record of each withdrawn release, by NAME@VERSION.

    If the caller changes this mapping, the next `Repository.write` of the targets metadata signs and saves the change.
    """
    entries: dict[str, Withdrawal] = repository.targets.unrecognized_fields.setdefault(WITHDRAWN, {})
    return entries


def withdrawn_versions(repository: Repository, name: str) -> list[str]:
    """Return the withdrawn versions of a bundle."""
    return [release.partition("@")[2] for release in withdrawals(repository) if release.startswith(f"{name}@")]


def withdraw(repository: Repository, release: str, reason: str, time: str) -> None:
    """Withdraw a published release.

    Devices see the withdrawal only after the caller has called `Repository.write`.

    Args:
        repository: The repository, opened for writing.
        release: The release to withdraw, NAME@VERSION.
        reason: The reason for the withdrawal, which becomes part of the signed metadata.
        time: The time of the withdrawal, ISO 8601 in UTC.
    """
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


def provenance_of(target: TargetFile) -> Provenance:
    """Return the origin of a release, which is stored in the release's target."""
    return Provenance.model_validate(target.unrecognized_fields.get(CUSTOM, {}))


def list_releases(repository: Repository) -> list[Release]:
    """Return all releases, published and withdrawn, newest first."""
    releases = []
    for path, target in repository.targets.targets.items():
        if path.endswith(SUFFIX):
            name, version, _ = path.split("/")
            releases.append(_published(repository, f"{name}@{version}", target))
    for release, entry in withdrawals(repository).items():
        releases.append(
            Release(
                release=release,
                state="withdrawn",
                length=entry["length"],
                sha256=entry["sha256"],
                **Provenance.model_validate(entry["custom"]).model_dump(),
                metrics=None,
                reason=entry["reason"],
                withdrawn=entry["time"],
            )
        )
    return sorted(releases, key=lambda each: (each.time or "", each.release), reverse=True)


def find_release(repository: Repository, release: str) -> Release:
    """Return the published or withdrawn release with this name and version, NAME@VERSION.

    Raises NoReleaseError if the repository has no such release.
    """
    for each in list_releases(repository):
        if each.release == release:
            return each
    raise NoReleaseError(
        release, "not in this repository", "a release that `fleet release list` prints", "run fleet release list"
    )


def _published(repository: Repository, release: str, target: TargetFile) -> Release:
    return Release(
        release=release,
        state="published",
        length=target.length,
        sha256=target.hashes["sha256"],
        **provenance_of(target).model_dump(),
        metrics=_metrics(repository.local_file(target)),
    )


def _metrics(file: Path) -> dict[str, dict[str, float]] | None:
    """Return the model's metrics for each target, such as onnx-int8, from the manifest in an archive.

    The result is None if the archive is missing, for example because only the metadata was cloned.
    """
    try:
        manifest = json.loads(archive.inspect(file, MANIFEST).member)
    except (OSError, AgentError, ValueError):
        return None
    return {
        target: {name: float(estimate["value"]) for name, estimate in described["metrics"]["estimates"].items()}
        for target, described in manifest["targets"].items()
    }
