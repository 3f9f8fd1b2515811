"""`fleet publish`: a bundle becomes a release. `fleet sign`: the builder's signature alone, for CI to make.

Unpacked and compared with its manifest; signed by its builder, and that signature verified against the policy; listed
in the repository of releases; its version registered as a tag in git. Any step can be the last one of a run that is
killed: the next run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_agent.core.progress import size
from edge_agent.storage import archive as archives
from edge_agent.storage import manifest as manifests
from tuf.api.metadata import TargetFile

from fleet import audit
from fleet.cli.main import Commands, command
from fleet.errors import BundleError, VersionError
from fleet.releases import catalog, signing
from fleet.releases.git_tags import Registry, bump
from fleet.releases.repository import Repository
from fleet.releases.signing import Policy
from fleet.releases.workspace import Workplace, add_options

PARTS = ("major", "minor", "patch")
CUSTOM = "custom"


def add_commands(commands: Commands) -> None:
    to = command(
        commands,
        "publish",
        "publish a bundle as a release: verify, sign, list, register",
        "The same bytes again: nothing to do. Other bytes under a version that is used: refused. Killed: run it again. "
        "Without a repository, one is made with development keys.",
    )
    to.add_argument("bundle", type=Path, metavar="BUNDLE", help="what the pipeline packed: models/bundle/NAME.tar.zst")
    which = to.add_mutually_exclusive_group()
    which.add_argument("--version", metavar="V", help="a semantic version, such as 1.2.0")
    which.add_argument("--bump", choices=PARTS, default="patch", help="after the highest version that is used (patch)")
    to.add_argument("--signature", type=Path, metavar="FILE", help="the builder's, made before by `fleet sign`")
    to.add_argument("--commit", metavar="SHA", help="what the bundle was built from, where it was built elsewhere")
    to.add_argument("--git", type=Path, default=Path(), metavar="DIR", help="the git repository that built it (.)")
    to.add_argument("--no-tag", action="store_true", help="no git: no commit is named, no version registered")
    add_options(to)
    to.set_defaults(run=publish_command, text=_text)
    to = command(
        commands,
        "sign",
        "sign a bundle as its builder, without publishing it",
        "The policy says with which key, or with which identity of a CI system (Sigstore; needs the network).",
    )
    to.add_argument("bundle", type=Path, metavar="BUNDLE")
    to.add_argument("signature", type=Path, metavar="FILE", help="a new file")
    add_options(to)
    to.set_defaults(run=sign_command, text=lambda result: f"{result['signature']}: signed by {result['builder']}")


def publish_command(options: argparse.Namespace) -> dict[str, Any]:
    work = Workplace(options)
    with work.opened(make=True) as repository, tempfile.TemporaryDirectory(prefix="fleet-") as temporary:
        digest = _sha256(options.bundle)
        folder, name = unpacked(options.bundle, Path(temporary))
        policy = Policy.load(work.policy_file)
        registry = None if options.no_tag else Registry(options.git)
        commit = _commit(options, registry)
        version, present = _version(repository, registry, commit, name, digest, options.version, options.bump)
        path = catalog.path_of(name, version)
        if present is not None:
            return _again(work, repository, registry, f"{name}@{version}", present, options.bundle)
        doubt = _doubt(options, registry, repository, commit)
        if registry and commit:
            registry.check(name, version, commit)
        signature = Path(temporary) / f"{name}.tar.zst.sig"
        if options.signature:
            shutil.copyfile(options.signature, signature)
        else:
            work.progress.say(f"signing {name}")
            signing.sign(folder, signature, policy, work.keys)
        work.progress.say("verifying the signature")
        signing.verify(folder, signature, policy)
        custom = {"version": version, "commit": commit, "time": audit.now(), "builder": policy.builder}
        for role in ("targets", "snapshot", "timestamp"):
            repository.signers(role)  # before gigabytes are copied
        work.progress.say(f"publishing {name}@{version} ({size(options.bundle.stat().st_size)})")
        repository.add(f"{path}.sig", signature, custom)
        target = repository.add(path, options.bundle, custom, work.progress.bytes)
        if target.hashes["sha256"] != digest:
            raise BundleError(str(options.bundle), "it changed while it was published", "one bundle", "run it again")
        audit.append(work.audit_file, "publish", release=f"{name}@{version}", sha256=target.hashes["sha256"], **custom)
        repository.write("targets", "snapshot", "timestamp")
        repository.tidy(path)
        return _result(work, repository, registry, f"{name}@{version}", target, "published", doubt)


def _sha256(bundle: Path) -> str:
    try:
        with bundle.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BundleError(str(bundle), error.strerror or str(error), "a bundle", "build it: make repro") from None


def unpacked(bundle: Path, temporary: Path) -> tuple[Path, str]:
    """The verified content of an archive in a folder below `temporary`, and the bundle's name. Raises BundleError."""
    folder = temporary / "bundle"
    try:
        archives.unpack(bundle, folder)
        manifest = manifests.read(folder)
        manifests.verify(folder, manifest)
    except archives.ArchiveError as error:
        raise BundleError(error.where, error.found, error.expected, "build it again: make repro") from None
    except manifests.ManifestError as error:
        where = ": ".join(filter(None, (str(bundle), error.file.rpartition("/")[2], error.field)))
        raise BundleError(where, error.found, error.expected, "build it again: make repro") from None
    return folder.rename(temporary / manifest["name"]), str(manifest["name"])


def _version(
    repository: Repository,
    registry: Registry | None,
    commit: str | None,
    name: str,
    digest: str,
    version: str | None,
    part: str,
) -> tuple[str, TargetFile | None]:
    """The version to publish as, and its target where these bytes already are that version. Raises VersionError."""
    published = catalog.released(repository, name)
    if version is None:
        same = [each for each, target in published.items() if target.hashes["sha256"] == digest]
        if same:
            return same[-1], published[same[-1]]
        tags = registry.versions(name) if registry else {}
        here = [each for each, at in tags.items() if at == commit]
        if here and here[0] not in published and here[0] not in catalog.withdrawn(repository, name):
            return here[0], None  # registered by hand, as with `gto register`
        return bump([*published, *catalog.withdrawn(repository, name), *tags], part), None
    catalog.path_of(name, version)
    remedy = "publish these bytes under a new version: --bump patch"
    if version in catalog.withdrawn(repository, name):
        raise VersionError(f"{name}@{version}", "it was withdrawn", "a version that was never used", remedy)
    if version in published:
        found = published[version].hashes["sha256"]
        if found != digest:
            raise VersionError(f"{name}@{version}", f"published with sha256 {found}", f"sha256 {digest}", remedy)
        return version, published[version]
    return version, None


def _commit(options: argparse.Namespace, registry: Registry | None) -> str | None:
    """What the bundle was built from: what is checked out, or where it was signed elsewhere, the commit in the
    builder's certificate, else `--commit`, else none. Raises VersionError."""
    if registry is None:
        return None
    stated = signing.commit_of(options.signature) if options.signature else None
    if wanted := options.commit or stated:
        commit = registry.known(wanted)
        if stated and commit != stated:
            raise VersionError(f"commit {wanted}", f"the signature was made for {stated}", "that one", "no --commit")
        return commit
    return None if options.signature else registry.commit()


def _doubt(
    options: argparse.Namespace, registry: Registry | None, repository: Repository, commit: str | None
) -> list[str]:
    """What is not known of the commit. Raises VersionError where it is known not to have built the bundle."""
    if registry is None or options.commit or (commit and options.signature):
        return []
    if commit is None:
        return ["no commit is named, no tag made: the signature states none; --commit SHA would name it"]
    changed = registry.changed(repository.folder)
    if changed:
        raise VersionError(
            str(registry.folder),
            f"changed and not committed: {', '.join(changed[:5])}{' ...' if len(changed) > 5 else ''}",
            "a commit that is what built the bundle",
            "commit, build, publish; or --no-tag, which names no commit",
        )
    built = registry.built(commit, options.bundle)
    if built is False:
        raise VersionError(
            str(options.bundle),
            f"not built from the commit that is checked out: dvc.lock of {commit[:12]} names other bytes",
            "the bundle that dvc.lock names",
            "make repro; or --commit SHA, which built it; or --no-tag, which names no commit",
        )
    return [] if built else [f"commit {commit[:12]} has no dvc.lock: that it built the bundle is not checked"]


def _again(
    work: Workplace, repository: Repository, registry: Registry | None, release: str, target: TargetFile, bundle: Path
) -> dict[str, Any]:
    """These bytes are this release already. What is not there of it is brought back: the archive, the tag."""
    repository.place(target, bundle, work.progress.bytes)
    return _result(work, repository, registry, release, target, "unchanged")


def _result(
    work: Workplace,
    repository: Repository,
    registry: Registry | None,
    release: str,
    target: TargetFile,
    state: str,
    doubt: Sequence[str] = (),
) -> dict[str, Any]:
    custom = target.unrecognized_fields[CUSTOM]
    tag = None
    if registry and custom["commit"]:
        name, version = release.split("@")
        tag = registry.register(name, version, custom["commit"], f"{release} sha256 {target.hashes['sha256']}")
    return {
        "release": release,
        "state": state,
        "repository": work.where,
        "path": target.path,
        "length": target.length,
        "sha256": target.hashes["sha256"],
        "tag": tag,
        **{name: custom[name] for name in catalog.MINE},
        "warnings": [*doubt, *catalog.warnings(repository)],
    }


def sign_command(options: argparse.Namespace) -> dict[str, Any]:
    work = Workplace(options)
    policy = Policy.load(work.policy_file)
    with tempfile.TemporaryDirectory(prefix="fleet-") as temporary:
        _sha256(options.bundle)
        folder, name = unpacked(options.bundle, Path(temporary))
        made = Path(temporary) / f"{name}.sig"
        signing.sign(folder, made, policy, work.keys)
        signing.verify(folder, made, policy)
        partial = options.signature.with_name(f".{options.signature.name}.partial")
        shutil.copyfile(made, partial)
        partial.replace(options.signature)
    return {"signature": str(options.signature), "name": name, "builder": policy.builder}


def _text(result: dict[str, Any]) -> str:
    said = "published" if result["state"] == "published" else "published before, with these bytes: nothing to do"
    lines = [f"{result['release']}  {said}  ({size(result['length'])}, sha256 {result['sha256']})"]
    if result["tag"]:
        lines.append(f"tag {result['tag']} (push it: git push origin {result['tag']})")
    return "\n".join([*lines, *(f"warning: {each}" for each in result["warnings"])])
