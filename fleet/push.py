"""What a rollout brings to its devices: releases that may be installed now, packed with the metadata that says so."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_agent import archive, durable
from edge_agent.errors import AgentError
from edge_agent.manifest import MANIFEST
from tuf.api.metadata import TargetFile

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
    """What a plan notes of a release whose archive is here, as signed. `targets`: sha256 of each model file.

    Raises NoReleaseError, StorageError, TrustError, BundleError, SourceError.
    """
    target, file = _signed(repository, release)
    try:
        manifest = json.loads(archive.inspect(file, MANIFEST).wanted)
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


def _signed(repository: Repository, release: str) -> tuple[TargetFile, Path]:
    """A release's target and its archive, whose bytes are those that were signed; fetched where they are not here."""
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
    file, wanted = repository.file_of(target), _content(target.length, target.hashes["sha256"])
    found = _found(file)
    if repository.fetch and found != wanted:  # a cache that a power cut or a bad disk tore is filled again
        repository.fetch(file)
        found = _found(file)
    remedy = "publish the same bytes again: fleet publish"
    if found is None:
        raise StorageError(str(file), "the archive is not here", wanted, remedy)
    if found != wanted:  # every device would refuse it, and a good release be condemned
        raise TrustError(str(file), found, f"what is signed: {wanted}", remedy)
    return target, file


def _found(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return _content(stream.tell(), digest)
    except FileNotFoundError:
        return None


def _content(length: int, sha256: str) -> str:
    return f"{length} bytes, sha256 {sha256}"


def pack(repository: Repository, wanted: Iterable[str], file: Path) -> None:
    """Write the metadata, and the archives of these releases, as one tar: the same content, the same bytes.

    What a client reads first comes last, so that a copy that breaks off is a repository of before. Raises what `offer`
    raises of an archive that is not what is signed, and OSError.
    """
    names = [f"{repository.timestamp.snapshot_meta.version}.snapshot.json", "timestamp.json"]
    names.insert(0, f"{repository.snapshot.meta['targets.json'].version}.targets.json")
    roots = [f"{version}.root.json" for version in range(1, repository.root.version + 1)]
    archives = [_signed(repository, release)[1] for release in sorted(wanted)]
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
