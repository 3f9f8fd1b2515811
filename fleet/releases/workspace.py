"""Where the repository of releases, the private keys, the policy and the audit trail are; opened, or made new."""

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
    """One repository of releases, its keys, its policy and its audit trail.

    Args:
        where: a folder, or a URL such as s3://bucket/prefix.
        keys: the folder of private keys; None: FLEET_KEYS, or the one in the user's home.
        policy: the file that says who builds; None: beside the repository, or in FOLDER for a URL.
        days: how long what is signed now is good for, by role; a role that is not named has its number in DAYS.
    """

    def __init__(
        self, where: str, keys: Path | None = None, policy: Path | None = None, days: Mapping[str, float] = DAYS
    ) -> None:
        self.where, self.policy, self.days = where, policy, days
        self.keys_folder = keys
        self.progress = Progress(sys.stderr)

    @cached_property
    def keys(self) -> Keys:
        return Keys(self.keys_folder or default_folder())

    @property
    def local(self) -> Path:
        """The folder on this machine that has the policy and the audit trail."""
        return Path(FOLDER if repository_storage.is_url(self.where) else self.where)

    @property
    def policy_file(self) -> Path:
        return self.policy or self.local / signing.POLICY

    def record(self, action: str, **what: Any) -> None:
        """One more line of the audit trail: what is about to become visible."""
        audit_log.append(self.local / audit_log.FILE, action, **what)

    @contextlib.contextmanager
    def open_repository(self, write: bool = True, make: bool = False, wait_s: float = 0.0) -> Iterator[Repository]:
        """The repository; where there is none and `make`, a new one with development keys.

        `wait_s`: how long to wait for another process that works on it. Raises BusyError.
        """
        with repository_storage.open_storage(self.where, write, wait_s) as place:
            if make and not exists(place.folder):
                self._create(place, development=True, asked=False)
            if not exists(place.folder):
                raise ConfigurationError(
                    self.where, "no repository of releases", "metadata/1.root.json", "make one: fleet keys init"
                )
            yield Repository(place.folder, self.keys, self.days, place.mirror, place.fetch)

    def init(self, development: bool, policy: SigningPolicy | None) -> tuple[Repository, bool]:
        """The repository and its keys, and whether they are new."""
        with repository_storage.open_storage(self.where, write=True) as place:
            if exists(place.folder):
                if policy:
                    self._policy(policy)
                return Repository(place.folder, self.keys, self.days), False
            return self._create(place, development, policy), True

    def _create(
        self,
        place: repository_storage.Storage,
        development: bool,
        policy: SigningPolicy | None = None,
        asked: bool = True,
    ) -> Repository:
        policy = self._policy(policy, asked)
        self.progress.step(f"new {'development ' if development else ''}keys in {self.keys.folder}")
        self.record("init", repository=self.where, development=development, builder=policy.builder)
        return Repository.create(place.folder, self.keys, development, self.days, place.mirror)

    def _policy(self, wanted: SigningPolicy | None, asked: bool = True) -> SigningPolicy:
        """The policy that is there, as it is; a new one only where there is none. Raises ConfigurationError.

        `asked`: a person called for a new repository. Otherwise a policy belongs to a repository that is not here,
        unless it is what a killed run left: one whose key was made here.
        """
        if not self.policy_file.exists():
            wanted = wanted or SigningPolicy(public_key=str(self.keys.make(BUILDER).keyval["public"]))
            wanted.save(self.policy_file)
            return wanted
        there = SigningPolicy.load(self.policy_file)
        if wanted and (there.builder, there.issuer) != (wanted.builder, wanted.issuer):
            raise ConfigurationError(
                f"{self.policy_file}: builder",
                f"it pins {there.builder}",
                f"{wanted.builder}, or no policy yet",
                "a policy is never written over: change it by hand, commit it; or leave out --builder-identity",
            )
        if not asked and not (there.public_key and self.keys.has(BUILDER, there.keyid)):
            raise ConfigurationError(
                self.where,
                f"no repository of releases, but {self.policy_file} pins {there.builder}",
                "the repository that this policy belongs to",
                "restore metadata/ from git or a backup, or name the repository: --repository; "
                "a new one under this policy: fleet keys init",
            )
        return there
