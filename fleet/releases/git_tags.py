"""Register the versions of bundles as annotated git tags NAME@vVERSION, in the format of GTO (Git Tag Ops).

A version is registered only on the commit that its bundle was built from. If neither the operator nor a certificate
names this commit, `BundleSource` compares the bundle with dvc.lock in the checked-out commit.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fleet.errors import ConfigurationError, VersionError


@dataclass(frozen=True)
class TagRegistry:
    """The version tags of the git repository that contains `folder`."""

    folder: Path

    def commit(self) -> str:
        """Return the full id of the checked-out commit. Raises ConfigurationError if no commit is checked out."""
        result = self._git("rev-parse", "--verify", "HEAD^{commit}")
        if result.returncode:
            reason = result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "no commit"
            raise ConfigurationError(
                str(self.folder),
                reason,
                "a commit on which the version can be registered",
                "commit first, or use --no-tag",
            )
        return result.stdout.strip()

    def resolve(self, revision: str) -> str:
        """Return the full commit id of a git revision. Raises VersionError if this repository does not contain it."""
        result = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if result.returncode:
            raise VersionError(
                f"commit {revision}",
                f"not in {self.folder.absolute()}",
                "a commit of this git repository",
                "run `git fetch`, then run the command again",
            )
        return result.stdout.strip()

    def source(self, name: str, requested: str | None, certified: str | None, is_local: bool) -> BundleSource:
        """Determine the commit that a bundle was built from. The commit may remain unknown.

        Args:
            name: The bundle's name.
            requested: The revision that the operator gave with --commit, or None.
            certified: The commit that the builder's certificate states, or None.
            is_local: Whether the bundle was built in this checkout. If it was, the checked-out commit is used when
                `requested` and `certified` are both None.

        Raises:
            VersionError: The revision is not in this repository, or differs from the certified commit.
            ConfigurationError: No commit is checked out.
        """
        commit = None
        if revision := requested or certified:
            commit = self.resolve(revision)
            if certified and commit != certified:
                raise VersionError(
                    f"commit {revision}",
                    "not the commit for which the signature was made",
                    f"commit {certified}",
                    "leave out --commit",
                )
        elif is_local:
            commit = self.commit()
        return BundleSource(self, name, commit, is_named=bool(revision))

    def is_built_by(self, commit: str, bundle: Path) -> bool | None:
        """Return whether dvc.lock in a commit lists the digest of a bundle; None if the commit has no dvc.lock."""
        result = self._git("show", f"{commit}:./dvc.lock")
        if result.returncode:
            return None
        with bundle.open("rb") as stream:
            content = hashlib.file_digest(stream, "md5").hexdigest()
        entry = json.dumps(
            [{"md5": content, "relpath": bundle.name}], sort_keys=True
        )  # DVC's digest of a folder is the digest of this list
        digests = (content, f"{hashlib.md5(entry.encode(), usedforsecurity=False).hexdigest()}.dir")
        return any(f"md5: {digest}\n" in result.stdout for digest in digests)

    def changed_files(self, excluded: Path) -> list[str]:
        """Return the tracked files that have uncommitted changes, except files in the folder `excluded`.

        `excluded` is the folder to which publishing itself writes.
        """
        result = self._git("status", "--porcelain", "-z", "--untracked-files=no")
        top = Path(self._git("rev-parse", "--show-toplevel").stdout.strip())
        names = [entry[3:] for entry in result.stdout.split("\0") if len(entry) > 3 and entry[2] == " "]
        return [name for name in names if not (top / name).is_relative_to(excluded.resolve())]

    def versions(self, name: str) -> dict[str, str]:
        """Return the registered versions of an artifact, each with the id of the commit that its tag points to."""
        import gto.api  # imported here because it is slow and most commands do not need it
        from gto.exceptions import ArtifactNotFound, GTOException

        try:
            entries = gto.api.show(str(self.folder), name)
        except ArtifactNotFound:
            return {}
        except GTOException as error:
            raise ConfigurationError(
                str(self.folder), str(error), "version tags that GTO can read", "correct or delete the invalid tag"
            ) from None
        return {
            each["version"].removeprefix("v"): each["commit_hexsha"] for each in entries if each["version"][0] == "v"
        }

    def register(self, name: str, version: str, commit: str, message: str) -> str:
        """Create the git tag of a version, unless the tag exists already. The tag is not pushed.

        Args:
            name: The name of the artifact, which is the name of the bundle.
            version: The semantic version to register.
            commit: The full id of the commit that the tag will point to.
            message: The message of the annotated tag.

        Returns:
            The name of the tag.

        Raises:
            VersionError: The version is registered on a different commit, or the commit has a different version.
            ConfigurationError: Git cannot create the tag.
        """
        import gto.api
        from gto.exceptions import GTOException

        if not is_registered(self.versions(name), name, version, commit):
            try:
                gto.api.register(str(self.folder), name, commit, version=f"v{version}", message=message)
            except GTOException as error:
                raise VersionError(
                    f"tag {name}@v{version}", str(error), "a tag that GTO can create", "publish another version"
                ) from None
            except Exception as error:  # dulwich and git raise other errors, for example without user.name
                raise ConfigurationError(
                    str(self.folder),
                    f"{type(error).__name__}: {error}",
                    "a git repository that accepts tags",
                    "set user.name and user.email with git config, then run the command again",
                ) from None
        return f"{name}@v{version}"

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(self.folder), *arguments], capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class BundleSource:
    """The commit that a bundle was built from, and the version tags of its git repository. The commit may be unknown.

    Attributes:
        registry: The version tags of the bundle's git repository.
        name: The bundle's name.
        commit: The full commit id; None if it is unknown.
        is_named: Whether the operator or the certificate named the commit. If neither did, `commit` is the checked-out
            commit, or None.
    """

    registry: TagRegistry
    name: str
    commit: str | None
    is_named: bool

    @cached_property
    def versions(self) -> dict[str, str]:
        """The registered versions of the bundle, each with the id of the commit that its tag points to."""
        return self.registry.versions(self.name)

    def check(self, version: str, bundle: Path, written: Path) -> list[str]:
        """Check that the bundle matches its commit, and that the version can be registered on this commit.

        Args:
            version: The semantic version to publish.
            bundle: The archive of the bundle.
            written: The folder to which publishing writes. Uncommitted changes in this folder are ignored.

        Returns:
            Warnings for the operator about what could not be checked.

        Raises:
            VersionError: The bundle was not built from the commit, or the commit has a different version.
        """
        if self.commit is None:
            return ["no tag is created, because the signature contains no commit; pass the commit with --commit SHA"]
        warnings = [] if self.is_named else self._warnings(self.commit, bundle, written)
        is_registered(self.versions, self.name, version, self.commit)
        return warnings

    def _warnings(self, commit: str, bundle: Path, written: Path) -> list[str]:
        changed = self.registry.changed_files(written)
        if changed:
            raise VersionError(
                str(self.registry.folder),
                f"files with uncommitted changes: {', '.join(changed[:5])}{' ...' if len(changed) > 5 else ''}",
                "a commit that has exactly the files that the bundle was built from",
                "commit the files, build the bundle again, then publish it; or use --no-tag, which records no commit",
            )
        is_built = self.registry.is_built_by(commit, bundle)
        if is_built is False:
            raise VersionError(
                str(bundle),
                f"not built from the checked-out commit, because dvc.lock of {commit[:12]} has a different digest",
                "a bundle whose digest is in this dvc.lock",
                "run make repro; or pass the bundle's commit with --commit SHA; or use --no-tag",
            )
        return [] if is_built else [f"commit {commit[:12]} has no dvc.lock: the origin of the bundle is not checked"]


def is_registered(versions: Mapping[str, str], name: str, version: str, commit: str) -> bool:
    """Return whether a version is already registered on a commit.

    If the result is False, the version can be registered on the commit.

    Args:
        versions: The registered versions of the artifact, each with the id of its commit (`TagRegistry.versions`).
        name: The artifact's name.
        version: The version to look for.
        commit: The full id of the commit.

    Raises:
        VersionError: The version is registered on a different commit, or the commit has a different version.
    """
    if version in versions and versions[version] != commit:
        raise VersionError(
            f"tag {name}@v{version}",
            f"already registered on commit {versions[version][:12]}",
            f"a tag on commit {commit[:12]}",
            f"publish another version, or publish from commit {versions[version][:12]}",
        )
    other = next((each for each, at in versions.items() if at == commit and each != version), None)
    if other:
        raise VersionError(
            f"commit {commit[:12]}",
            f"already registered as {name}@v{other}",
            f"a commit without another version of {name}",
            f"use --version {other}, or commit the changes first",
        )
    return version in versions
