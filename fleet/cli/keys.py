"""`fleet keys`: create, replace and list the keys of a repository of releases."""

from __future__ import annotations

import argparse

from pydantic import Field

from fleet.cli.main import Commands, Output, command
from fleet.cli.release_options import add_options, workspace_of
from fleet.errors import ConfigurationError
from fleet.releases import expiry
from fleet.releases.keys import BUILDER
from fleet.releases.repository import ROLES, Repository
from fleet.releases.rotation import rotate
from fleet.releases.signing import SigningPolicy
from fleet.releases.workspace import Workspace


class KeyShown(Output):
    """A key of a role, as `fleet keys` shows it.

    `here` says whether the private key is in the folder of private keys.
    """

    id: str
    here: bool


class RoleShown(Output):
    """A role of the repository with the keys that sign for the role, as `fleet keys` shows it."""

    role: str
    version: int
    threshold: int
    keys: list[KeyShown]
    expires: str
    days_left: float


class KeyStatus(Output):
    """The result of `fleet keys status`.

    The results of `fleet keys init` and `fleet keys rotate` also contain these fields.
    """

    repository: str
    development: bool
    folder: str
    roles: list[RoleShown]
    warnings: list[str]


class InitialKeys(Output):
    """The fields that only the result of `fleet keys init` has.

    `pin` is the path of the root metadata that devices must trust.
    """

    created: bool = Field(serialization_alias="made")
    pin: str
    policy: str


class KeysInitialised(KeyStatus, InitialKeys):
    """The result of `fleet keys init`."""


class ReplacedKey(Output):
    """The fields that only the result of `fleet keys rotate` has.

    They are the role, and the ids of the role's old and new key.
    """

    role: str
    old: str
    new: str


class KeyRotated(KeyStatus, ReplacedKey):
    """The result of `fleet keys rotate`."""


def add_commands(commands: Commands) -> None:
    """Add `keys` to the command line."""
    keys = command(commands, "keys", "create, replace and list the keys of a repository of releases")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    init = command(
        actions,
        "init",
        "create a new repository and its keys",
        "Root metadata requires two of three signatures. If the environment has a passphrase for a role, the "
        "role's keys are encrypted with it. Afterwards, move the keys of root and targets off this machine. Keep the "
        "keys of snapshot and timestamp on the machine that runs `fleet release refresh`.",
    )
    init.add_argument(
        "--development",
        action="store_true",
        help="create development keys, which only fleets with `development: true` accept",
    )
    init.add_argument(
        "--builder-identity",
        metavar="ID",
        help="identity in the CI system's certificate, which signs instead of a builder key",
    )
    init.add_argument("--builder-issuer", metavar="URL", help="OpenID Connect provider that issues the identity")
    add_options(init)
    init.set_defaults(run=_init, text=_init_text)
    rotation = command(
        actions,
        "rotate",
        "replace a key of one role",
        "Devices accept the new key automatically. The command needs as many root keys as root's threshold requires, "
        "and the keys of all roles whose metadata is signed again: if a key of targets is replaced, these roles are "
        "targets, snapshot and timestamp. If the command was killed, check `fleet keys status`. Run the command again "
        "only if the old key is still listed (for root: with --key), because it would replace one more key if not.",
    )
    rotation.add_argument("--role", choices=(*ROLES, BUILDER), default="root", help="role whose key is replaced (root)")
    rotation.add_argument(
        "--key", metavar="ID", help="root key to replace: its id or the id's first characters (the first key listed)"
    )
    add_options(rotation)
    rotation.set_defaults(run=_rotate, text=_rotate_text)
    status = command(
        actions, "status", "show roles, key ids, thresholds, expiry, and which private keys are available here"
    )
    add_options(status, writes=False)
    status.set_defaults(run=_status, text=_status_text)


def _init(options: argparse.Namespace) -> KeysInitialised:
    workspace = workspace_of(options)
    policy = None
    if options.builder_identity or options.builder_issuer:
        if not (options.builder_identity and options.builder_issuer):
            raise ConfigurationError(
                "fleet keys init",
                "only one of the options --builder-identity and --builder-issuer",
                "both options or neither",
                "pass both options",
            )
        policy = SigningPolicy(identity=options.builder_identity, issuer=options.builder_issuer)
    repository, is_new = workspace.init(options.development, policy)
    return KeysInitialised(
        created=is_new,
        pin=str(repository.metadata / "1.root.json"),
        policy=str(workspace.policy_file),
        **_status_of(workspace, repository).model_dump(),
    )


def _rotate(options: argparse.Namespace) -> KeyRotated:
    workspace = workspace_of(options)
    with workspace.open_repository() as repository:
        if options.role == BUILDER:
            policy = SigningPolicy.load(workspace.policy_file)
            if not policy.public_key:
                raise ConfigurationError(
                    str(workspace.policy_file),
                    f"the builder signs with the identity {policy.identity}, not with a key",
                    "a builder that signs with a key",
                    "none is needed, because an identity has no key to rotate",
                )
            old = policy.keyid
            key = workspace.keys.make(BUILDER)
            new = key.keyid
            SigningPolicy(public_key=str(key.keyval["public"]), ignore=policy.ignore).save(workspace.policy_file)
        else:
            if options.key and options.role != "root":
                raise ConfigurationError(
                    "--key",
                    f"used with --role {options.role}",
                    "--role root, the only role with several keys",
                    "leave out --key",
                )
            old, new = rotate(repository, options.role, options.key)
        workspace.record("rotate", role=options.role, old=old, new=new)
        return KeyRotated(role=options.role, old=old, new=new, **_status_of(workspace, repository).model_dump())


def _status(options: argparse.Namespace) -> KeyStatus:
    workspace = workspace_of(options)
    with workspace.open_repository(write=False) as repository:
        return _status_of(workspace, repository)


def _status_of(workspace: Workspace, repository: Repository) -> KeyStatus:
    roles = []
    for role in ROLES:
        definition, signed = repository.root.roles[role], repository.role(role)
        roles.append(
            RoleShown(
                role=role,
                version=signed.version,
                threshold=definition.threshold,
                keys=[KeyShown(id=keyid, here=workspace.keys.has(role, keyid)) for keyid in definition.keyids],
                expires=signed.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
                days_left=round(expiry.days_left(repository, role), 2),
            )
        )
    return KeyStatus(
        repository=workspace.location,
        development=repository.development,
        folder=str(workspace.keys.folder),
        roles=roles,
        warnings=expiry.warnings(repository),
    )


def _init_text(result: KeysInitialised) -> str:
    state = "a new repository" if result.created else "the repository exists already: nothing to do"
    return "\n".join(
        [f"{result.repository}: {state}", f"root of trust to pin on devices: {result.pin}", "", _status_text(result)]
    )


def _rotate_text(result: KeyRotated) -> str:
    return f"{result.role}: {result.new[:12]} replaces {result.old[:12]}\n\n{_status_text(result)}"


def _status_text(result: KeyStatus) -> str:
    rows: list[tuple[str, ...]] = [("role", "version", "threshold", "key", "here", "expires", "days left")]
    for role in result.roles:
        head = (role.role, str(role.version), f"{role.threshold} of {len(role.keys)}")
        tail = (role.expires, f"{role.days_left:.1f}")
        for index, key in enumerate(role.keys):
            first = index == 0
            rows.append(
                (
                    *(head if first else ("", "", "")),
                    key.id[:12],
                    "yes" if key.here else "no",
                    *(tail if first else ("", "")),
                )
            )
    lines = [f"private keys: {result.folder}", table(rows), *(f"warning: {each}" for each in result.warnings)]
    return "\n".join(lines)


def table(rows: list[tuple[str, ...]]) -> str:
    """Format rows as lines of text with aligned columns, which are separated by two spaces."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
