"""The options that the commands about releases share: where the repository, the keys and the policy are."""

from __future__ import annotations

import argparse
from pathlib import Path

from fleet.releases import signing
from fleet.releases.keys import default_folder
from fleet.releases.repository import DAYS
from fleet.releases.workspace import FOLDER, Workspace


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


def workplace(options: argparse.Namespace) -> Workspace:
    """The workplace that options of `add_options` name."""
    days = {role: getattr(options, f"{role}_days", days) for role, days in DAYS.items()}
    return Workspace(options.repository, options.keys, getattr(options, "policy", None), days)
