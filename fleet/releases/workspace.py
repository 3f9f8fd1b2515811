"""Open or create a repository of releases together with its keys, its signing policy and its audit log."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from edge_agent.core.progress import Progress

from fleet import audit_log
from fleet.errors import ConfigurationError
from fleet.releases import repository_storage, signing
from fleet.releases.keys import BUILDER, Keys, default_folder
from fleet.releases.repository import DAYS, Repository, exists
from fleet.releases.signing import SigningPolicy

FOLDER = "releases"


class Workspace:
    """A repository of releases with its private keys, its signing policy and its audit log."""

    def __init__(
        self, location: str, keys: Path | None = None, policy: Path | None = None, days: Mapping[str, float] = DAYS
    ) -> None:
        """Store the locations of the repository, the keys and the signing policy. Nothing is opened yet.

        Args:
            location: The location of the repository: a folder, or a URL such as s3://bucket/prefix.
            keys: The folder of private keys. None selects the folder in the environment variable FLEET_KEYS or, if this
                variable is not set, the default folder in the user's home.
            policy: The file with the signing policy. None selects policy.json in the repository's folder or, if the
                repository is a URL, in the local folder FOLDER.
            days: The validity of new signatures in days, by role. A role without an entry gets its default from DAYS.
        """
        self.location, self.policy, self.days = location, policy, days
        self.keys_folder = keys
        self.progress = Progress(sys.stderr)

    @cached_property
    def keys(self) -> Keys:
        return Keys(self.keys_folder or default_folder())

    @property
    def local_folder(self) -> Path:
        """The folder on this machine that contains the signing policy and the audit log."""
        return Path(FOLDER if repository_storage.is_url(self.location) else self.location)

    @property
    def policy_file(self) -> Path:
        return self.policy or self.local_folder / signing.POLICY

    def record(self, action: str, **fields: Any) -> None:
        """Append a line about an action to the audit log.

        Call this method before other processes can see the changes that the action makes.
        """
        audit_log.append(self.local_folder / audit_log.FILE, action, **fields)

    @contextlib.contextmanager
    def open_repository(self, write: bool = True, create: bool = False, wait_s: float = 0.0) -> Iterator[Repository]:
        """Open the repository until the context ends.

        Args:
            write: Whether to open the repository for writing, which requires its lock.
            create: Whether to create a repository with development keys if there is none.
            wait_s: The number of seconds to wait if another process holds the lock.

        Raises:
            BusyError: Another process holds the lock.
            ConfigurationError: There is no repository.
        """
        with repository_storage.open_storage(self.location, write, wait_s) as storage:
            if create and not exists(storage.folder):
                self._create(storage, development=True, is_requested=False)
            if not exists(storage.folder):
                raise ConfigurationError(
                    self.location,
                    "no repository of releases",
                    "metadata/1.root.json",
                    "create a repository: fleet keys init",
                )
            yield Repository(storage.folder, self.keys, self.days, storage.mirror, storage.fetch)

    def init(self, development: bool, policy: SigningPolicy | None) -> tuple[Repository, bool]:
        """Open the repository, or create it with new keys. Return the repository and whether it is new.

        `development` says whether new keys are development keys. `policy` is the signing policy that the operator
        requested; None selects the existing policy or, if there is none, a policy with a new builder key.
        """
        with repository_storage.open_storage(self.location, write=True) as storage:
            if exists(storage.folder):
                if policy:
                    self._policy(policy)
                return Repository(storage.folder, self.keys, self.days), False
            return self._create(storage, development, policy), True

    def _create(
        self,
        storage: repository_storage.Storage,
        development: bool,
        policy: SigningPolicy | None = None,
        is_requested: bool = True,
    ) -> Repository:
        policy = self._policy(policy, is_requested)
        self.progress.step(f"new {'development ' if development else ''}keys in {self.keys.folder}")
        self.record("init", repository=self.location, development=development, builder=policy.builder)
        return Repository.create(storage.folder, self.keys, development, self.days, storage.mirror)

    def _policy(self, requested: SigningPolicy | None, is_requested: bool = True) -> SigningPolicy:
        """Return the existing signing policy unchanged, or write a new one if there is none. Raises ConfigurationError.

        `is_requested` says whether the operator asked for a new repository. If the operator did not, an existing policy
        normally means that the repository of this policy is missing, which is an error. However, if the builder's
        private key exists too, the policy was written by a run that was killed. This policy is then used.
        """
        if not self.policy_file.exists():
            policy = requested or SigningPolicy(public_key=str(self.keys.make(BUILDER).keyval["public"]))
            policy.save(self.policy_file)
            return policy
        existing = SigningPolicy.load(self.policy_file)
        if requested and (existing.builder, existing.issuer) != (requested.builder, requested.issuer):
            raise ConfigurationError(
                f"{self.policy_file}: builder",
                f"the policy pins {existing.builder}",
                f"{requested.builder}, the builder in the options; or no policy file",
                "change the policy manually and commit it (it is never overwritten), or leave out --builder-identity",
            )
        if not is_requested and not (existing.public_key and self.keys.has(BUILDER, existing.keyid)):
            raise ConfigurationError(
                self.location,
                f"no repository of releases, but {self.policy_file} pins {existing.builder}",
                "the repository that this policy belongs to",
                "restore metadata/ from git or a backup, or pass the location of that repository with --repository; "
                "or create a new repository with this policy: fleet keys init",
            )
        return existing
