"""Publish a bundle as a release: choose its version, sign it, add it to the repository, and tag the commit in git.

All checks are done before anything is written. If a run is killed, run the same command again. The new run continues
where the killed run stopped.
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
        bundle: The archive of the bundle, which the pipeline built.
        version: The semantic version of the release. If None, `decide` chooses a version, normally the highest used
            version with `part` incremented.
        part: The part of the version to increment if `version` is None: major, minor or patch.
        signature: The file with the builder's signature from `sign_bundle`; None signs the bundle now.
        commit: The commit that the bundle was built from, as the operator names it; None if the operator names no
            commit.
        registry: The version tags of the git repository. If None, no commit is recorded and no version is tagged.
    """

    bundle: Path
    version: str | None = None
    part: str = "patch"
    signature: Path | None = None
    commit: str | None = None
    registry: TagRegistry | None = None


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle whose files match its manifest.

    `folder` contains the unpacked files, and `sha256` is the digest of `archive`.
    """

    archive: Path
    folder: Path
    name: str
    sha256: str


@dataclass(frozen=True)
class VersionDecision:
    """The version under which a bundle will be published, and the commit that the bundle was built from.

    `commit` is None if the commit is unknown. If this version is already published with the same archive, `published`
    is its target in the repository; if it is not, `published` is None.
    """

    version: str
    commit: str | None
    published: TargetFile | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Publication:
    """The result of publishing a bundle: a release in the repository.

    `is_new` says whether this run has added the release. `tag` is the git tag of the release's version, or None.
    """

    release: str
    target: TargetFile
    provenance: Provenance
    is_new: bool
    tag: str | None
    warnings: Sequence[str]


def publish(work: Workspace, request: PublishRequest) -> Publication:
    """Publish a bundle as a release.

    If the archive is already published, only restore missing files or a missing git tag of the release. Raises
    BundleError, VersionError, KeysError, TrustError, ConfigurationError, StorageError, BusyError, SourceError.
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
    """Sign a bundle with the key or the identity of the builder that the signing policy names.

    Args:
        work: The workspace with the keys and the signing policy.
        archive: The archive of the bundle.
        signature: The signature file to write.

    Returns:
        The name of the bundle, and the builder: `key:` followed by the key's id, or the identity.
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
    """Unpack an archive into a folder below `temporary`, and check the files against the manifest.

    Raises BundleError.
    """
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
        repository: The repository, which the caller opened for writing so that no other process changes its releases.

    Raises:
        VersionError: The version is withdrawn or used for a different bundle, or the bundle was not built from the
            commit.
        ConfigurationError: No commit is checked out, or the version tags in git are invalid.
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
                f"the sha256 of this bundle, {bundle.sha256}",
                NEW_VERSION,
            )
        return VersionDecision(version, commit, published[version])
    warnings = source.check(version, bundle.archive, repository.folder) if source else ()
    return VersionDecision(version, commit, warnings=warnings)


def _source(request: PublishRequest, name: str) -> BundleSource | None:
    """Return the source of a bundle, with the commit that it was built from; None if the request does not use git."""
    if request.registry is None:
        return None
    certified = signing.source_commit(request.signature) if request.signature else None
    return request.registry.source(name, request.commit, certified, is_local=request.signature is None)


def _next_version(part: str, source: BundleSource | None, used: list[str]) -> str:
    """Return the version of a new release for which the operator has requested no version.

    If an operator registered an unused version on the bundle's commit with `gto register`, return this version. If
    there is no such version, increment `part` of the highest used version and return the result.
    """
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
        policy: The signing policy, which names the builder.
        bundle: The unpacked bundle.
        prepared: The signature file that the builder made earlier; None signs the bundle now.
        provenance: The version, commit, publication time and builder of the release.

    Raises:
        KeysError: A private key is missing.
        TrustError: The signature is not valid.
        StorageError: There is not enough disk space.
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
            "the archive changed while it was published",
            "an archive that does not change",
            "publish it again",
        )
    work.record("publish", release=release, sha256=bundle.sha256, **custom)
    repository.write("targets", "snapshot", "timestamp")
    repository.remove_unlisted(path)
    return target
