"""What the commands about releases share: where the repository, the keys and the policy are."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_agent.core.progress import Progress

from fleet import audit
from fleet.errors import ConfigurationError
from fleet.releases import signing, store
from fleet.releases.keys import BUILDER, Keys, default_folder
from fleet.releases.repository import DAYS, Repository, exists
from fleet.releases.signing import Policy

FOLDER = "releases"


def add_options(to: argparse.ArgumentParser, writes: bool = True) -> None:
    to.add_argument(
        "--repository",
        default=FOLDER,
        metavar="WHERE",
        help=f"the repository of releases: a folder, or a URL such as s3://bucket/prefix ({FOLDER})",
    )
    to.add_argument(
        "--keys",
        type=Path,
        metavar="DIR",
        help=f"private keys (FLEET_KEYS, or {default_folder({})}); passphrases: "
        "FLEET_KEY_PASSPHRASE_<ROLE>, or FLEET_KEY_PASSPHRASE for all",
    )
    if writes:
        to.add_argument("--policy", type=Path, metavar="FILE", help=f"who builds ({FOLDER}/{signing.POLICY})")
        for role, days in DAYS.items():
            to.add_argument(
                f"--{role}-days",
                type=_days,
                default=days,
                metavar="N",
                help=f"how long {role} metadata that is signed now is good for ({days:g})",
            )


def _days(text: str) -> float:
    if not 0 < (number := float(text)) <= 3650:
        raise argparse.ArgumentTypeError(f"found {text}, expected more than 0 and at most 3650")
    return number


class Workplace:
    """`options` as `add_options` made them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.where: str = options.repository
        self.keys = Keys(options.keys or default_folder())
        local = Path(FOLDER if store.is_url(self.where) else self.where)
        self.policy_file: Path = getattr(options, "policy", None) or local / signing.POLICY
        self.audit_file = local / audit.FILE
        self.days = {role: getattr(options, f"{role}_days", days) for role, days in DAYS.items()}
        self.progress = Progress(sys.stderr)

    @contextlib.contextmanager
    def opened(self, write: bool = True, make: bool = False) -> Iterator[Repository]:
        """The repository; where there is none and `make`, a new one with development keys."""
        with store.opened(self.where, write) as place:
            if make and not exists(place.folder):
                self._create(place, development=True, asked=False)
            if not exists(place.folder):
                raise ConfigurationError(
                    self.where, "no repository of releases", "metadata/1.root.json", "make one: fleet keys init"
                )
            yield Repository(place.folder, self.keys, self.days, place.mirror, place.fetch)

    def init(self, development: bool, policy: Policy | None) -> tuple[Repository, bool]:
        """The repository and its keys, and whether they are new."""
        with store.opened(self.where, write=True) as place:
            if exists(place.folder):
                if policy:
                    self._policy(policy)
                return Repository(place.folder, self.keys, self.days), False
            return self._create(place, development, policy), True

    def _create(
        self, place: store.Place, development: bool, policy: Policy | None = None, asked: bool = True
    ) -> Repository:
        policy = self._policy(policy, asked)
        self.progress.say(f"new {'development ' if development else ''}keys in {self.keys.folder}")
        audit.append(self.audit_file, "init", repository=self.where, development=development, builder=policy.builder)
        return Repository.create(place.folder, self.keys, development, self.days, place.mirror)

    def _policy(self, wanted: Policy | None, asked: bool = True) -> Policy:
        """The policy that is there, as it is; a new one only where there is none. Raises ConfigurationError.

        `asked`: a person called for a new repository. Otherwise a policy belongs to a repository that is not here,
        unless it is what a killed run left: one whose key was made here.
        """
        if not self.policy_file.exists():
            wanted = wanted or Policy(public_key=str(self.keys.make(BUILDER).keyval["public"]))
            wanted.save(self.policy_file)
            return wanted
        there = Policy.load(self.policy_file)
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
