"""`fleet release`: what is published, taking a release back, and keeping the metadata from expiring."""

from __future__ import annotations

import argparse
from typing import Any

from edge_agent.core.progress import size

from fleet import audit_log
from fleet.cli.keys import table
from fleet.cli.main import Commands, command
from fleet.cli.release_options import add_options, workplace
from fleet.releases import catalog, expiry
from fleet.releases.catalog import Release
from fleet.releases.repository import ROLES
from fleet.releases.rotation import renew_root


def add_commands(commands: Commands) -> None:
    to = command(commands, "release", "list, show and withdraw releases; keep their metadata from expiring")
    actions = to.add_subparsers(dest="action", required=True, metavar="ACTION")
    added = command(actions, "list", "all releases, the newest first, the withdrawn ones too")
    added.add_argument("--name", metavar="NAME", help="only of this bundle")
    add_options(added, writes=False)
    added.set_defaults(run=_list, text=_list_text)
    added = command(actions, "show", "one release")
    added.add_argument("release", metavar="NAME@VERSION")
    add_options(added, writes=False)
    added.set_defaults(run=_show, text=_show_text)
    added = command(
        actions,
        "withdraw",
        "delist a release: devices refuse to install it from then on",
        "Its version is never used again. A device that runs it goes on: roll back there, or roll out another release.",
    )
    added.add_argument("release", metavar="NAME@VERSION")
    added.add_argument("--reason", required=True, metavar="TEXT", help="kept, signed, with the release")
    add_options(added)
    added.set_defaults(run=_withdraw, text=_withdraw_text)
    added = command(
        actions,
        "refresh",
        "sign timestamp and snapshot anew, so that they do not expire",
        "Run it from a timer, daily: it needs the online keys alone.",
    )
    added.add_argument("--all", action="store_true", help="targets too: needs its offline key")
    added.add_argument("--root", action="store_true", help="root too: needs the threshold of its offline keys")
    add_options(added)
    added.set_defaults(run=_refresh, text=_refresh_text)


def _list(options: argparse.Namespace) -> dict[str, Any]:
    work = workplace(options)
    with work.open_repository(write=False) as repository:
        found = [
            each for each in catalog.list_releases(repository) if options.name in (None, each.release.split("@")[0])
        ]
        return {
            "repository": work.where,
            "releases": [each.as_json() for each in found],
            "warnings": expiry.warnings(repository),
        }


def _show(options: argparse.Namespace) -> dict[str, Any]:
    work = workplace(options)
    with work.open_repository(write=False) as repository:
        return {"repository": work.where, **catalog.find_release(repository, options.release).as_json()}


def _withdraw(options: argparse.Namespace) -> dict[str, Any]:
    work = workplace(options)
    with work.open_repository() as repository:
        found = catalog.find_release(repository, options.release)
        if found.state == "published":
            catalog.withdraw(repository, options.release, options.reason, audit_log.now())
            work.record("withdraw", release=options.release, reason=options.reason)
            repository.write("targets", "snapshot", "timestamp")
            found = catalog.find_release(repository, options.release)
        return {"repository": work.where, **found.as_json(), "warnings": expiry.warnings(repository)}


def _refresh(options: argparse.Namespace) -> dict[str, Any]:
    work = workplace(options)
    with work.open_repository() as repository:
        roles = ["targets"] if options.all else []
        roles += ["snapshot", "timestamp"]
        if options.root:
            renew_root(repository)
        signed = ["root"] * options.root + roles
        work.record("refresh", roles=signed)
        repository.write(*roles)
        left = {role: round(expiry.days_left(repository, role), 2) for role in ROLES}
        return {
            "repository": work.where,
            "signed": signed,
            "days_left": left,
            "warnings": expiry.warnings(repository),
        }


def _list_text(result: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("release", "state", "size", "published", "commit", "metrics")]
    rows += [_row(Release(**each)) for each in result["releases"]]
    lines = [table(rows) if len(rows) > 1 else "no release yet: fleet publish"]
    return _with_warnings(lines, result)


def _row(each: Release) -> tuple[str, ...]:
    best = "; ".join(
        f"{target} {' '.join(f'{name} {value:.4g}' for name, value in list(values.items())[:1])}"
        for target, values in (each.metrics or {}).items()
    )
    return (
        each.release,
        each.state,
        size(each.length),
        each.time,
        (each.commit or "-")[:12],
        best or _line(each.reason or "-"),
    )


def _show_text(result: dict[str, Any]) -> str:
    told = ("release", "state", "reason", "withdrawn", "sha256", "length", "time", "commit", "builder")
    lines = [(name, _line(result[name])) for name in told if result[name] is not None]
    for target, values in (result["metrics"] or {}).items():
        lines.append((target, ", ".join(f"{name} {value:.4g}" for name, value in values.items())))
    return table([*lines])


def _withdraw_text(result: dict[str, Any]) -> str:
    lines = [f"{result['release']}  withdrawn: {_line(result['reason'])}"]
    return _with_warnings(lines, result)


def _with_warnings(lines: list[str], result: dict[str, Any]) -> str:
    return "\n".join([*lines, *(f"warning: {each}" for each in result["warnings"])])


def _line(text: object) -> str:
    """What a person wrote, on one line of a terminal: no control characters."""
    return "".join(each if each.isprintable() else " " for each in " ".join(str(text).split()))


def _refresh_text(result: dict[str, Any]) -> str:
    lines = [f"signed anew: {', '.join(result['signed'])}"]
    lines += [f"{role}: {left:.1f} days left" for role, left in result["days_left"].items()]
    return _with_warnings(lines, result)
