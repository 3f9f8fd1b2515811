"""A bundle becomes a release, in phases: read the bundle, decide on the version, sign and verify, write, register.

Each phase takes what the one before it returned, and what only can be refused is refused before anything is written. A
run that is killed in any of them can be run again: it goes on where the other one stopped.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.core.progress import size
from edge_agent.storage import archive as archives
from edge_agent.storage import manifest as manifests
from tuf.api.metadata import TargetFile

from fleet import audit_log
from fleet.errors import BundleError, VersionError
from fleet.releases import catalog, expiry, signing
from fleet.releases.git_tags import BundleSource, TagRegistry
from fleet.releases.repository import Repository
from fleet.releases.signing import SigningPolicy
from fleet.releases.versions import bump
from fleet.releases.workspace import Workspace

REBUILD = "build it again: make repro"
NEW_VERSION = "publish these bytes under a new version: --bump patch"


@dataclass(frozen=True)
class PublishRequest:
    """What is to be published, and as what.

    bundle: the archive that the pipeline packed.
    version: None: the next one after the highest that was used.
    part: which part of that is counted up: major, minor or patch.
    signature: the builder's, made before by `sign_bundle`; None: it is made now.
    commit: what the bundle was built from, where it was built elsewhere.
    registry: versions in git; None: no commit is named, and no version is registered.
    """

    bundle: Path
    version: str | None = None
    part: str = "patch"
    signature: Path | None = None
    commit: str | None = None
    registry: TagRegistry | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle that agrees with its manifest. `folder`: its content; `sha256`: of the archive."""

    archive: Path
    folder: Path
    name: str
    sha256: str


@dataclass(frozen=True)
class VersionDecision:
    """The version to publish as. `published`: where these bytes are that version already. `doubts`: for people."""

    version: str
    commit: str | None
    published: TargetFile | None = None
    doubts: Sequence[str] = ()


@dataclass(frozen=True)
class Publication:
    """A release that is in the repository. `is_new`: it was not there before. `tag`: of its version in git."""

    release: str
    target: TargetFile
    is_new: bool
    tag: str | None
    warnings: Sequence[str]


def publish(work: Workspace, request: PublishRequest) -> Publication:
    """Publish a bundle. The same bytes again: what is missing of the release is brought back, the archive and the tag.

    Raises BundleError, VersionError, KeysError, TrustError, ConfigurationError, StorageError, BusyError, SourceError.
    """
    registry = request.registry
    with tempfile.TemporaryDirectory(prefix="fleet-") as temporary:
        bundle = read_bundle(request.bundle, Path(temporary))
        with work.open_repository(make=True) as repository:
            policy = SigningPolicy.load(work.policy_file)
            decision = decide(request, bundle, repository)
            target = decision.published
            if target:
                repository.copy_content(target, bundle.archive, work.progress.bytes)
            else:
                custom = {
                    "version": decision.version,
                    "commit": decision.commit,
                    "time": audit_log.now(),
                    "builder": policy.builder,
                }
                target = _add(work, repository, policy, bundle, request.signature, custom)
            release, commit = f"{bundle.name}@{decision.version}", target.unrecognized_fields[catalog.CUSTOM]["commit"]
            tag = None
            if registry and commit:
                message = f"{release} sha256 {target.hashes['sha256']}"
                tag = registry.register(bundle.name, decision.version, commit, message)
            warnings = (*decision.doubts, *expiry.warnings(repository))
            return Publication(release, target, not decision.published, tag, warnings)


def sign_bundle(work: Workspace, archive: Path, signature: Path) -> tuple[str, str]:
    """Sign a bundle as the policy's builder into the file `signature`; returns the bundle's name and the builder."""
    policy = SigningPolicy.load(work.policy_file)
    with tempfile.TemporaryDirectory(prefix="fleet-") as temporary:
        bundle = read_bundle(archive, Path(temporary))
        made = Path(temporary) / f"{bundle.name}.sig"
        signing.sign(bundle.folder, made, policy, work.keys)
        signing.verify(bundle.folder, made, policy)
        partial = signature.with_name(f".{signature.name}.partial")
        shutil.copyfile(made, partial)
        partial.replace(signature)
    return bundle.name, policy.builder


# --- read


def read_bundle(archive: Path, temporary: Path) -> Bundle:
    """Unpack an archive into a folder below `temporary`, and compare it with its manifest. Raises BundleError."""
    folder = temporary / "bundle"
    try:
        with archive.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BundleError(str(archive), error.strerror or str(error), "a bundle", "build it: make repro") from None
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
    """The version to publish a bundle as, where nothing speaks against that. Raises VersionError, ConfigurationError.

    Args:
        request: what was asked for.
        bundle: as it was read.
        repository: opened to be changed, so that its releases stay what they are.
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
        raise VersionError(f"{name}@{version}", "it was withdrawn", "a version that was never used", NEW_VERSION)
    if version in published:
        found = published[version].hashes["sha256"]
        if found != bundle.sha256:
            raise VersionError(
                f"{name}@{version}", f"published with sha256 {found}", f"sha256 {bundle.sha256}", NEW_VERSION
            )
        return VersionDecision(version, commit, published[version])
    doubts = source.check(version, bundle.archive, repository.folder) if source else ()
    return VersionDecision(version, commit, doubts=doubts)


def _source(request: PublishRequest, name: str) -> BundleSource | None:
    """What the bundle was built from; None where git is left out."""
    if request.registry is None:
        return None
    stated = signing.source_commit(request.signature) if request.signature else None
    return request.registry.source(name, request.commit, stated, is_local=request.signature is None)


def _next_version(part: str, source: BundleSource | None, used: list[str]) -> str:
    """The version that was registered by hand for the commit, as with `gto register`; else the one after all others."""
    if source is None:
        return bump(used, part)
    here = [version for version, commit in source.versions.items() if commit == source.commit]
    return here[0] if here and here[0] not in used else bump([*used, *source.versions], part)


# --- sign and write


def _add(
    work: Workspace,
    repository: Repository,
    policy: SigningPolicy,
    bundle: Bundle,
    given: Path | None,
    custom: Mapping[str, str | None],
) -> TargetFile:
    """Have the builder's signature, verify it, and list both bundle and signature in the repository.

    Args:
        work: keys, progress and audit trail.
        repository: opened to be changed.
        policy: who the builder is.
        bundle: as it was read.
        given: the builder's signature; None: it is made.
        custom: what the release says of itself, signed with it.

    Raises KeysError, TrustError, StorageError; BundleError where the archive changed meanwhile.
    """
    release, path = f"{bundle.name}@{custom['version']}", catalog.target_path(bundle.name, str(custom["version"]))
    signature = bundle.folder.with_name(f"{bundle.name}.tar.zst.sig")
    if given:
        shutil.copyfile(given, signature)
    else:
        work.progress.step(f"signing {bundle.name}")
        signing.sign(bundle.folder, signature, policy, work.keys)
    work.progress.step("verifying the signature")
    signing.verify(bundle.folder, signature, policy)
    for role in ("targets", "snapshot", "timestamp"):
        repository.signers(role)  # before gigabytes are copied
    work.progress.step(f"publishing {release} ({size(bundle.archive.stat().st_size)})")
    repository.add(f"{path}.sig", signature, custom)
    target = repository.add(path, bundle.archive, custom, work.progress.bytes)
    if target.hashes["sha256"] != bundle.sha256:
        raise BundleError(str(bundle.archive), "it changed while it was published", "one bundle", "run it again")
    work.record("publish", release=release, sha256=bundle.sha256, **custom)
    repository.write("targets", "snapshot", "timestamp")
    repository.remove_unlisted(path)
    return target
