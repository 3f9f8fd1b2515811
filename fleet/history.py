"""`fleet audit`, `fleet logs`: what rollouts did, line by line, and what Ansible printed meanwhile."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from fleet import audit, record, trail
from fleet.cli import Commands, command, fleet_name
from fleet.errors import NoReleaseError
from fleet.rollout import RUNS


def add_commands(commands: Commands) -> None:
    to = command(commands, "audit", "who changed what on which device, when, with what result; as CSV")
    _common(to)
    to.add_argument("--fleet", type=fleet_name, required=True, metavar="NAME", help="as the inventory names it")
    to.add_argument("--device", metavar="NAME", help="only this one")
    to.add_argument("--since", type=_time, metavar="TIME", help="ISO 8601 with a zone, such as 2026-01-01T00:00:00Z")
    to.add_argument("--until", type=_time, metavar="TIME", help="before this")
    to.set_defaults(run=lines, text=lambda result: trail.as_csv(result["lines"]).rstrip("\n"))
    to = command(commands, "logs", "what Ansible printed during the last `fleet rollout` or `fleet rollback`")
    _common(to)
    to.set_defaults(run=logs, text=lambda result: result["text"])


def _common(to: argparse.ArgumentParser) -> None:
    to.add_argument("--rollouts", type=Path, default=record.ROLLOUTS, metavar="DIR", help="records (rollouts)")


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected ISO 8601 with a zone, such as 2026-01-01T00:00:00Z")
    return at


def lines(options: argparse.Namespace) -> dict[str, Any]:
    """Of every rollout of the fleet, and of what was called back by hand, the oldest first."""
    folder = options.rollouts / options.fleet
    if not folder.is_dir():
        there = sorted(path.name for path in options.rollouts.glob("[!.]*") if path.is_dir())
        raise NoReleaseError(str(folder), "no rollouts", f"a fleet that has some: {', '.join(there) or 'none'}", "")
    found = trail.read(record.rollouts(options.fleet, options.rollouts), folder / audit.FILE)
    return {"fleet": options.fleet, "lines": list(trail.select(found, options.device, options.since, options.until))}


def logs(options: argparse.Namespace) -> dict[str, Any]:
    files = sorted((options.rollouts / RUNS).glob("*/artifacts/stdout"))
    if not files:
        raise NoReleaseError(str(options.rollouts / RUNS), "no runs", "one of `fleet rollout`", "")
    return {"file": str(files[-1]), "text": files[-1].read_text(encoding="utf-8", errors="replace").rstrip("\n")}
