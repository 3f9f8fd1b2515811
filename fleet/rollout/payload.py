"""Pack the payload of a rollout: the archives of its releases, and the signed metadata that lists them.

The payload is packed when the rollout begins and checked again before each wave. A release that was withdrawn in the
meantime is not delivered to further devices. If the metadata was signed again in the meantime, the payload is packed
again, because the old metadata can expire during the rollout.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO

from edge_agent.core import durable
from edge_agent.core.errors import AgentError
from edge_agent.storage import archive
from edge_agent.storage.manifest import MANIFEST
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, TargetFile, Timestamp

from fleet.devices.eligibility import ReleaseInfo
from fleet.errors import BundleError, NoReleaseError, StorageError, TrustError
from fleet.records import rollout_folder
from fleet.records.rollout_folder import Record
from fleet.releases import catalog, expiry
from fleet.releases.repository import Repository
from fleet.releases.workspace import Workspace

LOCK_S = 60.0
# A folder in a device's state directory. The device's configuration names this folder as the repository from which the
# agent installs releases (playbooks/roles/edge_agent).
FOLDER = "repository"


def check_repository(repository: Repository, development: bool) -> None:
    """Check that a repository's metadata is current and signed with keys that a fleet accepts. Raises TrustError.

    `development` says whether the fleet accepts development keys.
    """
    if repository.development and not development:
        raise TrustError(
            str(repository.metadata),
            "signed with development keys",
            "a fleet that is marked `development: true`, or a repository without development keys",
            "create a repository with `fleet keys init`, and publish there; see docs/how-to/publish-a-release.md",
        )
    expiry.require_current(repository)


def release_info(repository: Repository, release: str) -> ReleaseInfo:
    """Return the information about a published release that is stored in a rollout plan.

    Raises NoReleaseError, StorageError, TrustError, BundleError, SourceError.
    """
    target, file = _signed_archive(repository, release)
    try:
        manifest = json.loads(archive.inspect(file, MANIFEST).member)
    except AgentError as error:
        raise BundleError(error.where, error.found, error.expected, error.remedy) from None
    return ReleaseInfo.model_validate(
        {
            "path": target.path,
            "length": target.length,
            "sha256": target.hashes["sha256"],
            "unpacked": sum(entry["size_bytes"] for entry in manifest["files"].values()),
            "targets": {name: entry["sha256"] for name, entry in manifest["targets"].items()},
            "requirements": manifest.get("requirements", {}),
        }
    )


def _signed_archive(repository: Repository, release: str) -> tuple[TargetFile, Path]:
    """Return a release's TUF target and the path of its archive, after checking the archive's size and digest.

    If the repository is remote and the local copy of the archive is missing or corrupted, the archive is fetched first.
    """
    target = _published_target(repository, release)
    file, expected = repository.local_file(target), _description(target.length, target.hashes["sha256"])
    content = _describe(file)
    if repository.fetch and content != expected:  # the cached file is missing, incomplete or corrupted
        repository.fetch(file)
        content = _describe(file)
    remedy = "publish the same bytes again: fleet publish"
    if content is None:
        raise StorageError(str(file), "the archive is missing", expected, remedy)
    if content != expected:  # every device would refuse the archive, and a good release would count as failed
        raise TrustError(str(file), content, f"the signed content: {expected}", remedy)
    return target, file


def _published_target(repository: Repository, release: str) -> TargetFile:
    """Return the TUF target of a release. Raises NoReleaseError if the release is withdrawn or not published."""
    name, _, version = release.partition("@")
    if entry := catalog.withdrawals(repository).get(release):
        raise NoReleaseError(
            release,
            f"withdrawn: {entry['reason']}",
            "a release that is published",
            "declare a different release in the inventory",
        )
    target = catalog.published_targets(repository, name).get(version)
    if target is None:
        raise NoReleaseError(
            release,
            "the release is not published",
            "a published release",
            "publish it with `fleet publish`, or choose a release that `fleet release list` prints",
        )
    return target


def _describe(file: Path) -> str | None:
    """Return the size and digest of a file as text, or None if the file is missing."""
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return _description(stream.tell(), digest)
    except FileNotFoundError:
        return None


def _description(length: int, sha256: str) -> str:
    return f"{length} bytes, sha256 {sha256}"


def refresh_payload(record: Record, releases: Collection[str], location: str) -> tuple[bool, str]:
    """Call `prepare_payload`, and return an error as text instead of raising it.

    Args:
        record: The rollout's record.
        releases: The releases that the payload must contain.
        location: The location of the repository of releases, a folder or a URL.

    Returns:
        Whether the payload was packed again, and the error (an empty string if there was none).
    """
    try:
        return prepare_payload(record, releases, location), ""
    except AgentError as error:
        return False, "; ".join(filter(None, (f"{error.where}: {error.found}", error.remedy)))
    except OSError as error:
        return False, f"{error.filename or 'the operating system'}: {error.strerror or error}"


def prepare_payload(record: Record, releases: Collection[str], location: str) -> bool:
    """Ensure that the payload contains these releases and the current metadata. Return whether it was packed again.

    The payload is the record's file push.tar. If nothing has changed, no archive is read.

    Args:
        record: The rollout's record.
        releases: The releases that the payload must contain.
        location: The location of the repository of releases, a folder or a URL.

    Raises:
        NoReleaseError: A release is no longer published.
        TrustError: A release's content has changed since the rollout began, or no device would accept the metadata.
        AgentError, OSError: The repository cannot be opened, or the payload cannot be written.
    """
    file = record.folder / rollout_folder.PUSH
    # Opening the repository waits while another process uses the local copy of a remote repository.
    with Workspace(location).open_repository(write=False, wait_s=LOCK_S) as repository:
        expiry.require_current(repository)
        for release in sorted(releases):
            planned = record.plan.releases[release].sha256
            published = _published_target(repository, release).hashes["sha256"]
            if planned and published != planned:
                raise TrustError(
                    f"{location}: {release}",
                    f"the published archive has sha256 {published}",
                    f"{planned}, the archive's sha256 when rollout {record.id} began",
                    "pass the repository with which the rollout began: --repository",
                )
        if _is_packed(file, repository, releases):
            return False
        write_archive(repository, releases, file)
    return True


def _is_packed(file: Path, repository: Repository, releases: Iterable[str]) -> bool:
    """Return whether a payload contains these releases and the repository's current metadata.

    Raises TrustError if the metadata in the payload is newer than the metadata in the repository.
    """
    archives = [
        _member(repository, repository.local_file(_published_target(repository, release))) for release in releases
    ]
    metadata = {_member(repository, repository.metadata / name): each for name, each in _metadata(repository).items()}
    try:
        with tarfile.open(file) as tar:
            members = set(tar.getnames())
            packed = {name: stream.read() for name in metadata if name in members and (stream := tar.extractfile(name))}
        timestamp = packed[_member(repository, repository.metadata / "timestamp.json")]
        version = Metadata[Timestamp].from_bytes(timestamp).signed.version
    except (FileNotFoundError, tarfile.TarError, KeyError, RepositoryError):
        return False
    if version > repository.timestamp.version:
        raise TrustError(
            f"{repository.metadata}: timestamp",
            f"version {repository.timestamp.version}",
            f"version {version} or later, because the payload already contains that version",
            "pass the repository with which the rollout began: --repository; or run fleet release refresh",
        )
    return packed == metadata and members.issuperset(archives)


def write_archive(repository: Repository, releases: Iterable[str], file: Path) -> None:
    """Write the metadata and the archives of releases to one tar file. The same content always gives the same bytes.

    A client finds all other files through timestamp.json. Because timestamp.json is packed last, the device's earlier
    copy of the repository stays valid if a transfer to the device is interrupted.

    Args:
        repository: The repository that contains the releases.
        releases: The releases whose archives are packed.
        file: The path of the tar file.

    Raises:
        AgentError: An archive is missing, or its content is not the signed content.
        OSError: The file cannot be written.
    """
    archives = [_signed_archive(repository, release)[1] for release in sorted(releases)]
    durable.make_directory(file.parent)
    partial = file.with_name(f".{file.name}.partial")
    with durable.add_file_name(file), tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in archives:
            with path.open("rb") as stream:
                _add(tar, _member(repository, path), stream, path.stat().st_size)
        for name, content in _metadata(repository).items():
            _add(tar, _member(repository, repository.metadata / name), io.BytesIO(content), len(content))
    durable.sync_file(partial)
    partial.replace(file)
    durable.sync_directory(file.parent)


def _metadata(repository: Repository) -> dict[str, bytes]:
    """Return the content of the metadata files, by file name: all versions of root, and the latest of each other role.

    The targets, snapshot and timestamp were read at the same time, so the timestamp refers to exactly this snapshot."""
    roots = [f"{version}.root.json" for version in range(1, repository.root.version)]
    # The files of old root versions may have been deleted because no device needs them any more.
    content = {name: file.read_bytes() for name in roots if (file := repository.metadata / name).is_file()}
    names = [
        f"{repository.root.version}.root.json",
        f"{repository.targets.version}.targets.json",
        f"{repository.snapshot.version}.snapshot.json",
        "timestamp.json",
    ]
    return content | {name: repository.content[name] for name in names}


def _member(repository: Repository, path: Path) -> str:
    """Return the name that a file of the repository has in the payload."""
    return f"{FOLDER}/{path.relative_to(repository.folder).as_posix()}"


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    """Add a file and its parent folders to a tar file. The owner, mode and time in the tar file are always the same."""
    members = tar.getnames()
    for parent in reversed(Path(name).parents[:-1]):
        if parent.as_posix() not in members:
            folder = tarfile.TarInfo(parent.as_posix())
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder, io.BytesIO())
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    tar.addfile(entry, content)
