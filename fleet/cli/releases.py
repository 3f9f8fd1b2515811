"""`fleet release`: list, show and withdraw releases, and renew the metadata before it expires."""

from __future__ import annotations

import argparse

from edge_agent.core.progress import size

from fleet import audit_log
from fleet.cli.keys import table
from fleet.cli.main import Commands, Output, command
from fleet.cli.release_options import add_options, workspace_of
from fleet.releases import catalog, expiry
from fleet.releases.catalog import Release
from fleet.releases.repository import ROLES
from fleet.releases.rotation import renew_root

SHOWN = ("release", "state", "reason", "withdrawn", "sha256", "length", "time", "commit", "builder")


class InRepository(Output):
    """The base class for results that contain the location of the repository that a command used."""

    repository: str


class ReleaseList(InRepository):
    """The result of `fleet release list`."""

    releases: list[Release]
    warnings: list[str]


class ReleaseDetails(Release, InRepository):
    """The result of `fleet release show`."""


class ReleaseWithdrawn(Release, InRepository):
    """The result of `fleet release withdraw`."""

    warnings: list[str]


class MetadataRefreshed(InRepository):
    """The result of `fleet release refresh`.

    `signed` lists the roles whose metadata was signed again; `days_left` gives the days until the metadata expires, by
    role.
    """

    signed: list[str]
    days_left: dict[str, float]
    warnings: list[str]


def add_commands(commands: Commands) -> None:
    """Add `release` to the command line."""
    parser = command(commands, "release", "list, show and withdraw releases; renew their metadata")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    added = command(actions, "list", "list all releases, the newest first, including withdrawn ones")
    added.add_argument("--name", metavar="NAME", help="list only releases of this bundle")
    add_options(added, writes=False)
    added.set_defaults(run=_list, text=_list_text)
    added = command(actions, "show", "show one release")
    added.add_argument("release", metavar="NAME@VERSION")
    add_options(added, writes=False)
    added.set_defaults(run=_show, text=_show_text)
    added = command(
        actions,
        "withdraw",
        "delist a release: devices then refuse to install it",
        "Its version is never used again. A device that runs the release keeps running it: roll the device back, or "
        "roll out another release.",
    )
    added.add_argument("release", metavar="NAME@VERSION")
    added.add_argument(
        "--reason",
        required=True,
        metavar="TEXT",
        help="reason for the withdrawal; it becomes part of the signed metadata",
    )
    add_options(added)
    added.set_defaults(run=_withdraw, text=_withdraw_text)
    added = command(
        actions,
        "refresh",
        "sign timestamp and snapshot again, so that they do not expire",
        "Run this command daily from a timer. It needs only the online keys.",
    )
    added.add_argument(
        "--all", action="store_true", help="also sign the targets metadata again, which needs its offline key"
    )
    added.add_argument(
        "--root",
        action="store_true",
        help="also sign the root metadata again, which needs as many offline root keys as its threshold requires",
    )
    add_options(added)
    added.set_defaults(run=_refresh, text=_refresh_text)


def _list(options: argparse.Namespace) -> ReleaseList:
    workspace = workspace_of(options)
    with workspace.open_repository(write=False) as repository:
        releases = catalog.list_releases(repository)
        return ReleaseList(
            repository=workspace.location,
            releases=[each for each in releases if options.name in (None, each.release.split("@")[0])],
            warnings=expiry.warnings(repository),
        )


def _show(options: argparse.Namespace) -> ReleaseDetails:
    workspace = workspace_of(options)
    with workspace.open_repository(write=False) as repository:
        release = catalog.find_release(repository, options.release)
        return ReleaseDetails(repository=workspace.location, **release.model_dump())


def _withdraw(options: argparse.Namespace) -> ReleaseWithdrawn:
    workspace = workspace_of(options)
    with workspace.open_repository() as repository:
        release = catalog.find_release(repository, options.release)
        if release.state == "published":
            catalog.withdraw(repository, options.release, options.reason, audit_log.now())
            workspace.record("withdraw", release=options.release, reason=options.reason)
            repository.write("targets", "snapshot", "timestamp")
            release = catalog.find_release(repository, options.release)
        return ReleaseWithdrawn(
            repository=workspace.location, **release.model_dump(), warnings=expiry.warnings(repository)
        )


def _refresh(options: argparse.Namespace) -> MetadataRefreshed:
    workspace = workspace_of(options)
    with workspace.open_repository() as repository:
        roles = ["targets"] if options.all else []
        roles += ["snapshot", "timestamp"]
        if options.root:
            renew_root(repository)
        signed = ["root"] * options.root + roles
        workspace.record("refresh", roles=signed)
        repository.write(*roles)
        return MetadataRefreshed(
            repository=workspace.location,
            signed=signed,
            days_left={role: round(expiry.days_left(repository, role), 2) for role in ROLES},
            warnings=expiry.warnings(repository),
        )


def _list_text(result: ReleaseList) -> str:
    rows: list[tuple[str, ...]] = [("release", "state", "size", "published", "commit", "metrics")]
    rows += [_row(each) for each in result.releases]
    lines = [table(rows) if len(rows) > 1 else "no releases yet: run fleet publish"]
    return _with_warnings(lines, result.warnings)


def _row(each: Release) -> tuple[str, ...]:
    best = "; ".join(
        f"{target} {' '.join(f'{name} {value:.4g}' for name, value in list(values.items())[:1])}"
        for target, values in (each.metrics or {}).items()
    )
    return (
        each.release,
        each.state,
        size(each.length),
        each.time or "-",
        (each.commit or "-")[:12],
        best or _line(each.reason or "-"),
    )


def _show_text(result: ReleaseDetails) -> str:
    values = ((name, getattr(result, name)) for name in SHOWN)
    lines = [(name, _line(value)) for name, value in values if value is not None]
    for target, metrics in (result.metrics or {}).items():
        lines.append((target, ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())))
    return table([*lines])


def _withdraw_text(result: ReleaseWithdrawn) -> str:
    return _with_warnings([f"{result.release}  withdrawn: {_line(result.reason)}"], result.warnings)


def _with_warnings(lines: list[str], warnings: list[str]) -> str:
    return "\n".join([*lines, *(f"warning: {each}" for each in warnings)])


def _line(text: object) -> str:
    """Return text from a user on one line, without control characters that a terminal would interpret."""
    return "".join(each if each.isprintable() else " " for each in " ".join(str(text).split()))


def _refresh_text(result: MetadataRefreshed) -> str:
    lines = [f"signed again: {', '.join(result.signed)}"]
    lines += [f"{role}: {days:.1f} days left" for role, days in result.days_left.items()]
    return _with_warnings(lines, result.warnings)
