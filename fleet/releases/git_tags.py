"""Versions in git: an annotated tag NAME@vVERSION on the commit that built the bundle, as GTO writes and lists them.

A version is registered only on a commit that built it, as far as that can be known (`BundleSource`).
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
    """The tags of the git repository that `folder` is in."""

    folder: Path

    def commit(self) -> str:
        """The commit that is checked out. Raises ConfigurationError where there is none."""
        done = self._git("rev-parse", "--verify", "HEAD^{commit}")
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no commit"
            raise ConfigurationError(
                str(self.folder), said, "a commit that the version stands for", "commit first, or use --no-tag"
            )
        return done.stdout.strip()

    def known(self, revision: str) -> str:
        """The commit that `revision` names, whole. Raises VersionError where it is not here."""
        done = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if done.returncode:
            raise VersionError(
                f"commit {revision}", f"not in {self.folder.absolute()}", "a commit of this repository", "git fetch"
            )
        return done.stdout.strip()

    def source(self, name: str, named: str | None, stated: str | None, is_local: bool) -> BundleSource:
        """What a bundle was built from.

        Args:
            name: the bundle's.
            named: a revision that a person named.
            stated: the commit that the builder's certificate has.
            is_local: whether it was built here; else it is not known what from, unless one of the two says it.

        Raises VersionError, and ConfigurationError where nothing is checked out.
        """
        commit = None
        if revision := named or stated:
            commit = self.known(revision)
            if stated and commit != stated:
                where = f"commit {revision}"
                raise VersionError(where, f"the signature was made for {stated}", "that one", "no --commit")
        elif is_local:
            commit = self.commit()
        return BundleSource(self, name, commit, is_named=bool(revision))

    def built(self, commit: str, bundle: Path) -> bool | None:
        """Whether the commit's dvc.lock names these bytes in their folder; None where it has no dvc.lock."""
        done = self._git("show", f"{commit}:./dvc.lock")
        if done.returncode:
            return None
        with bundle.open("rb") as stream:
            content = hashlib.file_digest(stream, "md5").hexdigest()
        entry = json.dumps([{"md5": content, "relpath": bundle.name}], sort_keys=True)  # as DVC digests a folder
        digests = (content, f"{hashlib.md5(entry.encode(), usedforsecurity=False).hexdigest()}.dir")
        return any(f"md5: {digest}\n" in done.stdout for digest in digests)

    def changed(self, but: Path) -> list[str]:
        """Tracked files that differ from the commit, those below `but` left out (what publishing itself writes)."""
        done = self._git("status", "--porcelain", "-z", "--untracked-files=no")
        top = Path(self._git("rev-parse", "--show-toplevel").stdout.strip())
        names = [entry[3:] for entry in done.stdout.split("\0") if len(entry) > 3 and entry[2] == " "]
        return [name for name in names if not (top / name).is_relative_to(but.resolve())]

    def versions(self, name: str) -> dict[str, str]:
        """Registered versions of an artifact, and the commit of each."""
        import gto.api  # slow, and who only reads a version's name needs none of it
        from gto.exceptions import ArtifactNotFound, GTOException

        try:
            found = gto.api.show(str(self.folder), name)
        except ArtifactNotFound:
            return {}
        except GTOException as error:
            raise ConfigurationError(str(self.folder), str(error), "a git repository with GTO's tags", "") from None
        return {each["version"].removeprefix("v"): each["commit_hexsha"] for each in found if each["version"][0] == "v"}

    def register(self, name: str, version: str, commit: str, message: str) -> str:
        """Write the tag, unless it is there; returns its name. Nothing is pushed."""
        import gto.api
        from gto.exceptions import GTOException

        if not is_registered(self.versions(name), name, version, commit):
            try:
                gto.api.register(str(self.folder), name, commit, version=f"v{version}", message=message)
            except GTOException as error:
                raise VersionError(f"tag {name}@v{version}", str(error), "a new tag", "") from None
            except Exception as error:  # dulwich and git have their own, such as for a committer without a name
                raise ConfigurationError(
                    str(self.folder),
                    f"{type(error).__name__}: {error}",
                    "a git repository that takes tags",
                    "git config user.name and user.email; then run it again",
                ) from None
        return f"{name}@v{version}"

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(self.folder), *arguments], capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class BundleSource:
    """What a bundle was built from, as far as that is known.

    registry: the repository of it.
    name: the bundle's.
    commit: None where it is not known.
    is_named: whether somebody named the commit; else it is the one that is checked out.
    """

    registry: TagRegistry
    name: str
    commit: str | None
    is_named: bool

    @cached_property
    def versions(self) -> dict[str, str]:
        """Those of the bundle that are registered, with the commit of each."""
        return self.registry.versions(self.name)

    def check(self, version: str, bundle: Path, written: Path) -> list[str]:
        """What is not known of a bundle that is to become a version, for people.

        Args:
            version: a semantic version.
            bundle: the archive.
            written: the folder that publishing itself writes to.

        Raises VersionError where the commit is known not to have built the bundle, or belongs to another version.
        """
        if self.commit is None:
            return ["no commit is named, no tag made: the signature states none; --commit SHA would name it"]
        doubts = [] if self.is_named else self._doubts(self.commit, bundle, written)
        is_registered(self.versions, self.name, version, self.commit)
        return doubts

    def _doubts(self, commit: str, bundle: Path, written: Path) -> list[str]:
        changed = self.registry.changed(written)
        if changed:
            raise VersionError(
                str(self.registry.folder),
                f"changed and not committed: {', '.join(changed[:5])}{' ...' if len(changed) > 5 else ''}",
                "a commit that is what built the bundle",
                "commit, build, publish; or --no-tag, which names no commit",
            )
        built = self.registry.built(commit, bundle)
        if built is False:
            raise VersionError(
                str(bundle),
                f"not built from the commit that is checked out: dvc.lock of {commit[:12]} names other bytes",
                "the bundle that dvc.lock names",
                "make repro; or --commit SHA, which built it; or --no-tag, which names no commit",
            )
        return [] if built else [f"commit {commit[:12]} has no dvc.lock: that it built the bundle is not checked"]


def is_registered(versions: Mapping[str, str], name: str, version: str, commit: str) -> bool:
    """Whether a version stands for a commit already; else it is free.

    Args:
        versions: those that are registered of the artifact, with the commit of each (`TagRegistry.versions`).
        name: the artifact's.
        version: the one that is to be registered.
        commit: the one that it is to stand for.

    Raises VersionError where the version stands for another commit, or the commit for another version.
    """
    if version in versions and versions[version] != commit:
        raise VersionError(
            f"tag {name}@v{version}",
            f"it stands for commit {versions[version][:12]}",
            f"commit {commit[:12]}",
            "publish another version, or from that commit",
        )
    other = next((each for each, at in versions.items() if at == commit and each != version), None)
    if other:
        raise VersionError(
            f"commit {commit[:12]}",
            f"registered as {name}@v{other}",
            f"{name}@v{version}: a commit is one version of an artifact",
            f"--version {other}, or commit what changed first",
        )
    return version in versions
