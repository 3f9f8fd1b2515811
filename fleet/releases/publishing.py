"""Publish a bundle as a release: decide its version, sign it, write it to the repository, and tag its commit.

All checks are done before anything is written. If a run is killed, repeat it. The new run continues where the killed
run stopped.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.core.progress import size
from edge_agent.storage import archive as archives
from edge_agent.storage import manifest as manifests
from tuf.api.metadata import TargetFile

from fleet import audit_log
from fleet.errors import BundleError, VersionError
from fleet.releases import catalog, expiry, signing
from fleet.releases.catalog import Provenance
from fleet.releases.git_tags import BundleSource, TagRegistry
from fleet.releases.repository import Repository
from fleet.releases.signing import SigningPolicy
from fleet.releases.versions import next_version
from fleet.releases.workspace import Workspace

REBUILD = "build it again: make repro"
NEW_VERSION = "publish this bundle as a new version: --bump patch"


@dataclass(frozen=True)
class PublishRequest:
    """A request to publish a bundle under a version.

    Attributes:
        bundle: The archive that the pipeline packed.
        version: The semantic version; None selects the version after the highest one that is in use.
        part: The part of the version to increment: major, minor or patch.
        signature: The builder's signature from `sign_bundle`; None signs the bundle now.
        commit: The commit that the bundle was built from, if it was built elsewhere.
        registry: The version tags in git. With None, no commit is recorded and no version is registered.
    """

    bundle: Path
    version: str | None = None
    part: str = "patch"
    signature: Path | None = None
    commit: str | None = None
    registry: TagRegistry | None = None


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle that matches its manifest. `folder` holds its content; `sha256` is the archive's digest."""

    archive: Path
    folder: Path
    name: str
    sha256: str


@dataclass(frozen=True)
class VersionDecision:
    """The version under which a bundle is published.

    `published` is the version's target if this archive is published already; otherwise None.
    """

    version: str
    commit: str | None
    published: TargetFile | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Publication:
    """The result of publishing a bundle: a release in the repository.

    `is_new` says whether this run has added the release; `tag` is the git tag of its version.
    """

    release: str
    target: TargetFile
    provenance: Provenance
    is_new: bool
    tag: str | None
    warnings: Sequence[str]


def publish(work: Workspace, request: PublishRequest) -> Publication:
    """Publish a bundle. If its archive is already published, only restore missing files or the git tag of the release.

    Raises BundleError, VersionError, KeysError, TrustError, ConfigurationError, StorageError, BusyError, SourceError.
    """
    registry = request.registry
    with tempfile.TemporaryDirectory(prefix="fleet-") as temporary:
        bundle = read_bundle(request.bundle, Path(temporary))
        with work.open_repository(create=True) as repository:
            policy = SigningPolicy.load(work.policy_file)
            decision = decide(request, bundle, repository)
            target = decision.published
            if target:
                repository.copy_content(target, bundle.archive, work.progress.bytes)
                provenance = catalog.provenance_of(target)
            else:
                provenance = Provenance(
                    version=decision.version, commit=decision.commit, time=audit_log.now(), builder=policy.builder
                )
                target = _add(work, repository, policy, bundle, request.signature, provenance)
            release, tag = f"{bundle.name}@{decision.version}", None
            if registry and provenance.commit:
                message = f"{release} sha256 {target.hashes['sha256']}"
                tag = registry.register(bundle.name, decision.version, provenance.commit, message)
            warnings = (*decision.warnings, *expiry.warnings(repository))
            return Publication(release, target, provenance, not decision.published, tag, warnings)


def sign_bundle(work: Workspace, archive: Path, signature: Path) -> tuple[str, str]:
    """Sign a bundle as the builder of the signing policy.

    Args:
        work: The workspace with the keys and the signing policy.
        archive: The archive of the bundle.
        signature: The file to which the signature is written.

    Returns:
        The name of the bundle, and the builder.
    """
    policy = SigningPolicy.load(work.policy_file)
    with tempfile.TemporaryDirectory(prefix="fleet-") as temporary:
        bundle = read_bundle(archive, Path(temporary))
        verified = Path(temporary) / f"{bundle.name}.sig"
        signing.sign(bundle.folder, verified, policy, work.keys)
        signing.verify(bundle.folder, verified, policy)
        partial = signature.with_name(f".{signature.name}.partial")
        shutil.copyfile(verified, partial)
        partial.replace(signature)
    return bundle.name, policy.builder


# --- read


def read_bundle(archive: Path, temporary: Path) -> Bundle:
    """Unpack an archive into a folder below `temporary`, and check it against its manifest. Raises BundleError."""
    folder = temporary / "bundle"
    try:
        with archive.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BundleError(
            str(archive), error.strerror or str(error), "the archive of a bundle", "build a bundle: make repro"
        ) from None
    try:
        archives.unpack(archive, folder)
        manifest = manifests.read(folder)
        manifests.verify(folder, manifest)
    except archives.ArchiveError as error:
        raise BundleError(error.where, error.found, error.expected, REBUILD) from None
    except manifests.ManifestError as error:
        where = ": ".join(filter(None, (str(archive), error.file.rpartition("/")[2], error.field)))
        raise BundleError(where, error.found, error.expected, REBUILD) from None
    name = str(manifest["name"])
    return Bundle(archive, folder.rename(temporary / name), name, sha256)


# --- decide


def decide(request: PublishRequest, bundle: Bundle, repository: Repository) -> VersionDecision:
    """Decide under which version a bundle is published.

    Args:
        request: The request to publish.
        bundle: The unpacked bundle.
        repository: The repository, opened for writing, so that its releases do not change in the meantime.

    Raises:
        VersionError: The version is already used, or the bundle was not built from its commit.
        ConfigurationError: No commit is checked out, or git's tags are invalid.
    """
    source = _source(request, bundle.name)
    commit = source.commit if source else None
    name, version = bundle.name, request.version
    published, withdrawn = catalog.published_targets(repository, name), catalog.withdrawn_versions(repository, name)
    if version is None:
        same = [each for each, target in published.items() if target.hashes["sha256"] == bundle.sha256]
        version = same[-1] if same else _next_version(request.part, source, [*published, *withdrawn])
    catalog.target_path(name, version)
    if version in withdrawn:
        raise VersionError(
            f"{name}@{version}", "this release was withdrawn", "a version that was never used", NEW_VERSION
        )
    if version in published:
        sha256 = published[version].hashes["sha256"]
        if sha256 != bundle.sha256:
            raise VersionError(
                f"{name}@{version}",
                f"already published with sha256 {sha256}",
                f"the bundle's sha256 {bundle.sha256}",
                NEW_VERSION,
            )
        return VersionDecision(version, commit, published[version])
    warnings = source.check(version, bundle.archive, repository.folder) if source else ()
    return VersionDecision(version, commit, warnings=warnings)


def _source(request: PublishRequest, name: str) -> BundleSource | None:
    """Return the commit that the bundle was built from; None if git is not used."""
    if request.registry is None:
        return None
    certified = signing.source_commit(request.signature) if request.signature else None
    return request.registry.source(name, request.commit, certified, is_local=request.signature is None)


def _next_version(part: str, source: BundleSource | None, used: list[str]) -> str:
    """Return the version that a manual `gto register` tagged on the commit; otherwise the next unused version."""
    if source is None:
        return next_version(used, part)
    registered = [version for version, commit in source.versions.items() if commit == source.commit]
    if registered and registered[0] not in used:
        return registered[0]
    return next_version([*used, *source.versions], part)


# --- sign and write


def _add(
    work: Workspace,
    repository: Repository,
    policy: SigningPolicy,
    bundle: Bundle,
    prepared: Path | None,
    provenance: Provenance,
) -> TargetFile:
    """Sign the bundle, verify the signature, and add the bundle and its signature to the repository as targets.

    Args:
        work: The workspace with the keys, the progress and the audit log.
        repository: The repository, opened for writing.
        policy: The signing policy, which defines the builder.
        bundle: The unpacked bundle.
        prepared: The builder's signature; None signs the bundle now.
        provenance: The origin of the release.

    Raises:
        KeysError: A private key is missing.
        TrustError: The signature is not valid.
        StorageError: There is no disk space.
        BundleError: The archive changed during publication.
    """
    release, path = f"{bundle.name}@{provenance.version}", catalog.target_path(bundle.name, str(provenance.version))
    custom = provenance.model_dump()
    signature = bundle.folder.with_name(f"{bundle.name}.tar.zst.sig")
    if prepared:
        shutil.copyfile(prepared, signature)
    else:
        work.progress.step(f"signing {bundle.name}")
        signing.sign(bundle.folder, signature, policy, work.keys)
    work.progress.step("verifying the signature")
    signing.verify(bundle.folder, signature, policy)
    for role in ("targets", "snapshot", "timestamp"):
        repository.signers(role)  # fail on a missing key before gigabytes are copied
    work.progress.step(f"publishing {release} ({size(bundle.archive.stat().st_size)})")
    repository.add(f"{path}.sig", signature, custom)
    target = repository.add(path, bundle.archive, custom, work.progress.bytes)
    if target.hashes["sha256"] != bundle.sha256:
        raise BundleError(
            str(bundle.archive),
            "it changed while it was published",
            "an archive that does not change",
            "publish it again",
        )
    work.record("publish", release=release, sha256=bundle.sha256, **custom)
    repository.write("targets", "snapshot", "timestamp")
    repository.remove_unlisted(path)
    return target
