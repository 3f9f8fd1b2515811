"""What a rollout brings to its devices: releases that may be installed now, packed with the metadata that says so.

It is packed when the rollout begins, and looked at again before each wave: a release that was withdrawn meanwhile goes
no further, and metadata that was signed meanwhile is packed anew, so a rollout may last longer than a timestamp.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO, Any

from edge_agent.core import durable
from edge_agent.core.errors import AgentError
from edge_agent.storage import archive
from edge_agent.storage.manifest import MANIFEST
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, TargetFile, Timestamp

from fleet.errors import BundleError, NoReleaseError, StorageError, TrustError
from fleet.records import rollout_folder
from fleet.records.rollout_folder import Record
from fleet.releases import catalog, expiry
from fleet.releases.repository import Repository
from fleet.releases.workspace import Workspace

LOCK_S = 60.0
# Below a device's state directory, where its configuration looks for releases (playbooks/roles/edge_agent).
FOLDER = "repository"


def check(repository: Repository, development: bool) -> None:
    """The metadata is current, and its keys are good enough for this fleet. Raises TrustError."""
    if repository.development and not development:
        raise TrustError(
            str(repository.metadata),
            "signed with development keys",
            "a fleet that is marked `development: true`, or a repository with keys of its own",
            "fleet keys init, and publish there; see docs/how-to/publish-a-release.md",
        )
    expiry.require_current(repository)


def offer(repository: Repository, release: str) -> dict[str, Any]:
    """What a plan notes of a release whose archive is here, as signed. `targets`: sha256 of each model file.

    Raises NoReleaseError, StorageError, TrustError, BundleError, SourceError.
    """
    target, file = _signed(repository, release)
    try:
        manifest = json.loads(archive.inspect(file, MANIFEST).member)
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
    target = _target(repository, release)
    file, wanted = repository.local_file(target), _content(target.length, target.hashes["sha256"])
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


def _target(repository: Repository, release: str) -> TargetFile:
    name, _, version = release.partition("@")
    if entry := catalog.withdrawals(repository).get(release):
        raise NoReleaseError(
            release,
            f"withdrawn: {entry['reason']}",
            "a release that is published",
            "declare another one in the inventory",
        )
    target = catalog.published_targets(repository, name).get(version)
    if target is None:
        raise NoReleaseError(release, "not published", "a release that is", "fleet publish, or fleet release list")
    return target


def _found(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return _content(stream.tell(), digest)
    except FileNotFoundError:
        return None


def _content(length: int, sha256: str) -> str:
    return f"{length} bytes, sha256 {sha256}"


def renew(begun: Record, wanted: Collection[str], where: str) -> tuple[bool, str]:
    """As `bring`; and why it cannot be brought, or nothing."""
    try:
        return bring(begun, wanted, where), ""
    except AgentError as error:
        return False, "; ".join(filter(None, (f"{error.where}: {error.found}", error.remedy)))
    except OSError as error:
        return False, f"{error.filename or 'the operating system'}: {error.strerror or error}"


def bring(begun: Record, wanted: Collection[str], where: str) -> bool:
    """Have these releases, and the metadata of now, in push.tar; whether it was packed anew.

    No archive is read where nothing has changed. Raises NoReleaseError or TrustError where a release is not what the
    rollout began with, TrustError where no device would take the metadata; what opening the repository raises, and
    what `pack` raises.
    """
    file = begun.folder / rollout_folder.PUSH
    # A store's local copy that another process works on is waited for.
    with Workspace(where).open_repository(write=False, wait_s=LOCK_S) as repository:
        expiry.require_current(repository)
        for release in sorted(wanted):
            began = begun.plan["releases"][release].get("sha256")
            found = _target(repository, release).hashes["sha256"]
            if began and found != began:
                raise TrustError(
                    f"{where}: {release}",
                    f"sha256 {found}",
                    f"{began}, which rollout {begun.id} began with",
                    "name the repository that it began with: --repository",
                )
        if _is_packed(file, repository, wanted):
            return False
        pack(repository, wanted, file)
    return True


def _is_packed(file: Path, repository: Repository, wanted: Iterable[str]) -> bool:
    """Whether a file holds these releases and this metadata. Raises TrustError where it holds later metadata."""
    archives = [_name(repository, repository.local_file(_target(repository, release))) for release in wanted]
    metadata = {_name(repository, repository.metadata / name): each for name, each in _metadata(repository).items()}
    try:
        with tarfile.open(file) as tar:
            there = set(tar.getnames())
            packed = {name: content.read() for name in metadata if name in there and (content := tar.extractfile(name))}
        timestamp = packed[_name(repository, repository.metadata / "timestamp.json")]
        version = Metadata[Timestamp].from_bytes(timestamp).signed.version
    except (FileNotFoundError, tarfile.TarError, KeyError, RepositoryError):
        return False
    if version > repository.timestamp.version:
        raise TrustError(
            f"{repository.metadata}: timestamp",
            f"version {repository.timestamp.version}",
            f"{version} or later: devices were brought that",
            "name the repository that the rollout began with: --repository; or fleet release refresh",
        )
    return packed == metadata and there.issuperset(archives)


def pack(repository: Repository, wanted: Iterable[str], file: Path) -> None:
    """Write the metadata, and the archives of these releases, as one tar: the same content, the same bytes.

    What a client reads first comes last, so that a copy that breaks off is a repository of before. Raises what `offer`
    raises of an archive that is not what is signed, and OSError.
    """
    archives = [_signed(repository, release)[1] for release in sorted(wanted)]
    durable.make_directory(file.parent)
    partial = file.with_name(f".{file.name}.partial")
    with durable.add_file_name(file), tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in archives:
            with path.open("rb") as content:
                _add(tar, _name(repository, path), content, path.stat().st_size)
        for name, each in _metadata(repository).items():
            _add(tar, _name(repository, repository.metadata / name), io.BytesIO(each), len(each))
    durable.sync_file(partial)
    partial.replace(file)
    durable.sync_directory(file.parent)


def _metadata(repository: Repository) -> dict[str, bytes]:
    """Every root, and the rest as it was read at once: the timestamp names this snapshot, whatever is signed now."""
    roots = [f"{version}.root.json" for version in range(1, repository.root.version)]
    # Old roots may be gone where no device needs them any more.
    content = {name: file.read_bytes() for name in roots if (file := repository.metadata / name).is_file()}
    names = [
        f"{repository.root.version}.root.json",
        f"{repository.targets.version}.targets.json",
        f"{repository.snapshot.version}.snapshot.json",
        "timestamp.json",
    ]
    return content | {name: repository.content[name] for name in names}


def _name(repository: Repository, path: Path) -> str:
    return f"{FOLDER}/{path.relative_to(repository.folder).as_posix()}"


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    known = tar.getnames()
    for parent in reversed(Path(name).parents[:-1]):
        if parent.as_posix() not in known:
            folder = tarfile.TarInfo(parent.as_posix())
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder, io.BytesIO())
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    tar.addfile(entry, content)
