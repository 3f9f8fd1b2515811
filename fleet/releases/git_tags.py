"""Versions in git: an annotated tag NAME@vVERSION on the commit that built the bundle, as GTO writes and lists them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import semver

from fleet.errors import ConfigurationError, VersionError

FIRST = {"major": "1.0.0", "minor": "0.1.0", "patch": "0.0.1"}


@dataclass(frozen=True)
class Registry:
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

    def check(self, name: str, version: str, commit: str) -> bool:
        """True if the version is registered on this commit, False if it is free there. Raises VersionError."""
        versions = self.versions(name)
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

    def register(self, name: str, version: str, commit: str, message: str) -> str:
        """Write the tag, unless it is there; returns its name. Nothing is pushed."""
        import gto.api
        from gto.exceptions import GTOException

        if not self.check(name, version, commit):
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


def parse(version: str) -> semver.Version:
    """Raises VersionError for what is no version of Semantic Versioning 2.0.0."""
    try:
        return semver.Version.parse(version)
    except (ValueError, TypeError):
        raise VersionError(
            f"version {version[:100]!r}", "not a semantic version", "MAJOR.MINOR.PATCH, such as 1.2.0", ""
        ) from None


def bump(versions: list[str], part: str) -> str:
    """The next version after the highest of these, or the first one."""
    if not versions:
        return FIRST[part]
    highest = max(map(parse, versions))
    return str(highest.next_version(part))
