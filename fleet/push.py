"""What a rollout brings to its devices: releases that may be installed now, packed with the metadata that says so."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_agent import archive, durable
from edge_agent.errors import AgentError
from edge_agent.manifest import MANIFEST

from fleet import releases
from fleet.errors import BundleError, NoReleaseError, StorageError, TrustError
from fleet.repository import ROLES, Repository

# Below a device's state directory, where its configuration looks for releases (playbooks/roles/edge_agent).
FOLDER = "repository"


def check(repository: Repository, development: bool) -> None:
    """The metadata is current, and its keys are good enough for this fleet. Raises TrustError."""
    if repository.development and not development:
        raise TrustError(
            str(repository.metadata),
            "signed with development keys",
            "a fleet that is marked `development: true`, or a repository with keys of its own",
            "fleet keys init, and publish there; see docs/fleet/releases.md",
        )
    for role in ROLES:
        if repository.days_left(role) <= 0:
            raise TrustError(
                f"{repository.metadata}: {role}",
                f"expired {-repository.days_left(role):.1f} days ago: no device would take it",
                "current metadata",
                "fleet release refresh",
            )


def offer(repository: Repository, release: str) -> dict[str, Any]:
    """What a plan notes of a release. `targets`: sha256 of each model file. Raises NoReleaseError, BundleError."""
    name, _, version = release.partition("@")
    if release in repository.withdrawn:
        raise NoReleaseError(
            release,
            f"withdrawn: {repository.withdrawn[release]['reason']}",
            "a release that is published",
            "declare another one in the inventory",
        )
    target = releases.released(repository, name).get(version)
    if target is None:
        raise NoReleaseError(release, "not published", "a release that is", "fleet publish, or fleet release list")
    file = repository.file_of(target)
    if repository.fetch and not file.is_file():
        repository.fetch(file)
    try:
        manifest = json.loads(archive.inspect(file, MANIFEST).wanted)
    except FileNotFoundError:
        raise StorageError(
            str(file),
            "the archive is not here",
            f"{target.length} bytes",
            "publish the same bytes again: fleet publish",
        ) from None
    except AgentError as error:
        raise BundleError(error.where, error.found, error.expected, error.remedy) from None
    return {
        "path": target.path,
        "length": target.length,
        "sha256": target.hashes["sha256"],
        "unpacked": sum(entry["size_bytes"] for entry in manifest["files"].values()),
        "targets": {each: told["sha256"] for each, told in manifest["targets"].items()},
        "requirements": manifest.get("requirements", {}),
    }


def pack(repository: Repository, wanted: Iterable[str], file: Path) -> None:
    """Write the metadata, and the archives of these releases, as one tar: the same content, the same bytes.

    What a client reads first comes last, so that a copy that breaks off is a repository of before.
    """
    names = [f"{repository.timestamp.snapshot_meta.version}.snapshot.json", "timestamp.json"]
    names.insert(0, f"{repository.snapshot.meta['targets.json'].version}.targets.json")
    roots = [f"{version}.root.json" for version in range(1, repository.root.version + 1)]
    archives = []
    for release in sorted(wanted):
        name, _, version = release.partition("@")
        archives.append(repository.file_of(releases.released(repository, name)[version]))
    durable.make_directory(file.parent)
    partial = file.with_name(f".{file.name}.partial")
    with durable.named(file), tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in [*archives, *(repository.metadata / each for each in roots + names if _there(repository, each))]:
            _add(tar, f"{FOLDER}/{path.relative_to(repository.folder).as_posix()}", path)
    durable.sync_file(partial)
    partial.replace(file)
    durable.sync_directory(file.parent)


def _there(repository: Repository, name: str) -> bool:
    """Old roots may be gone where no device needs them any more."""
    return (repository.metadata / name).is_file()


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    known = tar.getnames()
    for parent in reversed(Path(name).parents[:-1]):
        if parent.as_posix() not in known:
            folder = tarfile.TarInfo(parent.as_posix())
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder, io.BytesIO())
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = path.stat().st_size, 0o644
    with path.open("rb") as content:
        tar.addfile(entry, content)
