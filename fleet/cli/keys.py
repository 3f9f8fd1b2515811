"""`fleet keys`: the keys of a repository of releases: made, replaced, looked at."""

from __future__ import annotations

import argparse
from typing import Any

from fleet.cli.main import Commands, command
from fleet.cli.release_options import add_options, workplace
from fleet.errors import ConfigurationError
from fleet.releases import expiry
from fleet.releases.keys import BUILDER
from fleet.releases.repository import ROLES, Repository
from fleet.releases.rotation import rotate
from fleet.releases.signing import SigningPolicy
from fleet.releases.workspace import Workspace


def add_commands(commands: Commands) -> None:
    keys = command(commands, "keys", "make, replace and look at the keys of a repository of releases")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    init = command(
        actions,
        "init",
        "make a new repository and its keys",
        "Root: two of three sign. A passphrase set in the environment encrypts a role's keys. Take those of root and "
        "targets off this machine afterwards; keep snapshot's and timestamp's where `fleet release refresh` runs.",
    )
    init.add_argument("--development", action="store_true", help="marked: only fleets with `development: true` take it")
    init.add_argument("--builder-identity", metavar="ID", help="who builds, keyless: as CI's certificate names it")
    init.add_argument("--builder-issuer", metavar="URL", help="the OpenID Connect provider that vouches for it")
    add_options(init)
    init.set_defaults(run=_init, text=_init_text)
    rotate = command(
        actions,
        "rotate",
        "replace a key of one role",
        "Devices follow by themselves. Needs root's threshold, and the keys of the roles that are signed anew: of "
        "targets its own, snapshot's and timestamp's. Killed: look at `fleet keys status`, and run it again only where "
        "the old key is still listed (root's: with --key): what is done already would be done to another key.",
    )
    rotate.add_argument("--role", choices=(*ROLES, BUILDER), default="root", help="whose (root)")
    rotate.add_argument(
        "--key", metavar="ID", help="which of root's keys, or how its id begins; the one that is listed first"
    )
    add_options(rotate)
    rotate.set_defaults(run=_rotate, text=_rotate_text)
    status = command(actions, "status", "roles, key ids, thresholds, expiry, and which private keys are here")
    add_options(status, writes=False)
    status.set_defaults(run=_status, text=_status_text)


def _init(options: argparse.Namespace) -> dict[str, Any]:
    work = workplace(options)
    policy = None
    if options.builder_identity or options.builder_issuer:
        if not (options.builder_identity and options.builder_issuer):
            raise ConfigurationError(
                "fleet keys init", "one of --builder-identity and --builder-issuer", "both, or none", "name both"
            )
        policy = SigningPolicy(identity=options.builder_identity, issuer=options.builder_issuer)
    repository, made = work.init(options.development, policy)
    pin = repository.metadata / "1.root.json"
    return {"made": made, "pin": str(pin), "policy": str(work.policy_file), **_described(work, repository)}


def _rotate(options: argparse.Namespace) -> dict[str, Any]:
    work = workplace(options)
    with work.open_repository() as repository:
        if options.role == BUILDER:
            policy = SigningPolicy.load(work.policy_file)
            if not policy.public_key:
                raise ConfigurationError(
                    str(work.policy_file), f"the builder is {policy.identity}, who has no key", "a key", "nothing to do"
                )
            old = policy.keyid
            made = work.keys.make(BUILDER)
            new = made.keyid
            SigningPolicy(public_key=str(made.keyval["public"]), ignore=policy.ignore).save(work.policy_file)
        else:
            if options.key and options.role != "root":
                raise ConfigurationError(
                    "--key", f"role {options.role}", "root, which has several keys", "leave it out"
                )
            old, new = rotate(repository, options.role, options.key)
        work.record("rotate", role=options.role, old=old, new=new)
        return {"role": options.role, "old": old, "new": new, **_described(work, repository)}


def _status(options: argparse.Namespace) -> dict[str, Any]:
    work = workplace(options)
    with work.open_repository(write=False) as repository:
        return _described(work, repository)


def _described(work: Workspace, repository: Repository) -> dict[str, Any]:
    roles = []
    for role in ROLES:
        said = repository.root.roles[role]
        keys = [{"id": keyid, "here": work.keys.has(role, keyid)} for keyid in said.keyids]
        roles.append(
            {
                "role": role,
                "version": repository.role(role).version,
                "threshold": said.threshold,
                "keys": keys,
                "expires": repository.role(role).expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "days_left": round(expiry.days_left(repository, role), 2),
            }
        )
    return {
        "repository": work.where,
        "development": repository.development,
        "folder": str(work.keys.folder),
        "roles": roles,
        "warnings": expiry.warnings(repository),
    }


def _init_text(result: dict[str, Any]) -> str:
    said = "a new repository" if result["made"] else "there is a repository already: nothing to do"
    return "\n".join([f"{result['repository']}: {said}", f"devices pin {result['pin']}", "", _status_text(result)])


def _rotate_text(result: dict[str, Any]) -> str:
    return f"{result['role']}: {result['new'][:12]} in place of {result['old'][:12]}\n\n{_status_text(result)}"


def _status_text(result: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("role", "version", "threshold", "key", "here", "expires", "days left")]
    for role in result["roles"]:
        head = (role["role"], str(role["version"]), f"{role['threshold']} of {len(role['keys'])}")
        tail = (role["expires"], f"{role['days_left']:.1f}")
        for place, key in enumerate(role["keys"]):
            first = place == 0
            rows.append(
                (
                    *(head if first else ("", "", "")),
                    key["id"][:12],
                    "yes" if key["here"] else "no",
                    *(tail if first else ("", "")),
                )
            )
    lines = [f"private keys: {result['folder']}", table(rows), *(f"warning: {each}" for each in result["warnings"])]
    return "\n".join(lines)


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns two blanks apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
