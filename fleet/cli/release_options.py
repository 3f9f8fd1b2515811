"""Options shared by the commands about releases: the locations of the repository, the keys and the signing policy."""

from __future__ import annotations

import argparse
from pathlib import Path

from fleet.releases import signing
from fleet.releases.keys import default_folder
from fleet.releases.repository import DAYS
from fleet.releases.workspace import FOLDER, Workspace


def add_options(parser: argparse.ArgumentParser, writes: bool = True) -> None:
    """Add the options that all commands about releases share to a command's parser.

    If `writes` is true, also add the options of commands that sign metadata.
    """
    parser.add_argument(
        "--repository",
        default=FOLDER,
        metavar="WHERE",
        help=f"repository of releases: a folder, or a URL such as s3://bucket/prefix ({FOLDER})",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="DIR",
        help=f"folder of private keys (FLEET_KEYS, or {default_folder({})}); passphrases: "
        "FLEET_KEY_PASSPHRASE_<ROLE>, or FLEET_KEY_PASSPHRASE for all",
    )
    if writes:
        parser.add_argument(
            "--policy",
            type=Path,
            metavar="FILE",
            help=f"signing policy: whose signatures are accepted ({FOLDER}/{signing.POLICY})",
        )
        for role, days in DAYS.items():
            parser.add_argument(
                f"--{role}-days",
                type=_days,
                default=days,
                metavar="N",
                help=f"validity in days of {role} metadata that is signed now ({days:g})",
            )


def _days(text: str) -> float:
    if not 0 < (number := float(text)) <= 3650:
        raise argparse.ArgumentTypeError(f"found {text}, expected a number of days above 0 and at most 3650")
    return number


def workspace_of(options: argparse.Namespace) -> Workspace:
    """Return the workspace that an operator selected with the options that `add_options` defines."""
    days = {role: getattr(options, f"{role}_days", days) for role, days in DAYS.items()}
    return Workspace(options.repository, options.keys, getattr(options, "policy", None), days)
