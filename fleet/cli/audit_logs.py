"""`fleet audit`, `fleet logs`: what rollouts did, what Ansible printed meanwhile, what a device logged."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fleet import audit_log
from fleet.cli.main import Commands, command, fleet_name
from fleet.errors import ConfigurationError, NoReleaseError, SourceError
from fleet.execution.live_progress import LiveProgress, TaskEvent
from fleet.execution.playbook import RUNS, PlaybookRun
from fleet.inventory import model
from fleet.records import rollout_audit, rollout_folder
from fleet.records.rollout_folder import Record

READ = "Read the log"  # the task of playbooks/roles/edge_agent/tasks/logs.yml
ENDED = ("runner_on_ok", "runner_on_failed", "runner_on_unreachable")
LINES, MOST_LINES = 100, 10_000
SHOWN = 10  # names of devices
Json = dict[str, Any]


def add_commands(commands: Commands) -> None:
    to = command(commands, "audit", "who changed what on which device, when, with what result; as CSV")
    _common(to)
    to.add_argument("--fleet", type=fleet_name, required=True, metavar="NAME", help="as the inventory names it")
    to.add_argument("--device", metavar="NAME", help="only this one")
    to.add_argument("--since", type=_time, metavar="TIME", help="ISO 8601 with a zone, such as 2026-01-01T00:00:00Z")
    to.add_argument("--until", type=_time, metavar="TIME", help="before this")
    to.set_defaults(run=lines, text=lambda result: rollout_audit.as_csv(result["lines"]).rstrip("\n"))
    to = command(
        commands,
        "logs",
        "what a device's agent logged; without a device, what Ansible printed last",
        "Of a device: the journal of edge-agent, or a simulated one's log file. Of Ansible: the last rollout or "
        "rollback.",
    )
    _common(to)
    to.add_argument("device", nargs="?", metavar="DEVICE", help="as the inventory names it")
    to.add_argument("-i", "--inventory", type=Path, metavar="PATH", help="inventory/<fleet>, where a device is named")
    to.add_argument("--lines", type=_lines, default=LINES, metavar="N", help=f"of a device, the newest ({LINES})")
    to.set_defaults(run=_logs(to), text=lambda result: rollout_audit.plain(result["text"]))


def _common(to: argparse.ArgumentParser) -> None:
    to.add_argument("--rollouts", type=Path, default=rollout_folder.ROLLOUTS, metavar="DIR", help="records (rollouts)")


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected ISO 8601 with a zone, such as 2026-01-01T00:00:00Z")
    return at


def _lines(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= MOST_LINES:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1 to {MOST_LINES}")
    return number


def _logs(to: argparse.ArgumentParser) -> Callable[[argparse.Namespace], Json]:
    def run(options: argparse.Namespace) -> Json:
        if (options.device is None) != (options.inventory is None):
            to.error("DEVICE and -i/--inventory: expected both, or neither")
        return logs(options) if options.device is None else device_logs(options)

    return run


def lines(options: argparse.Namespace) -> Json:
    """Of every rollout of the fleet, and of what was called back by hand, the oldest first."""
    folder = options.rollouts / options.fleet
    if not folder.is_dir():
        there = sorted(path.name for path in options.rollouts.glob("[!.]*") if path.is_dir())
        raise NoReleaseError(str(folder), "no rollouts", f"a fleet that has some: {', '.join(there) or 'none'}", "")
    rollouts = rollout_folder.rollouts(options.fleet, options.rollouts)
    found = rollout_audit.read(rollouts, folder / audit_log.FILE)
    if options.device is not None:
        _refuse_unknown(folder, options.device, found, rollouts)
    return {
        "fleet": options.fleet,
        "lines": list(rollout_audit.select(found, options.device, options.since, options.until)),
    }


def _refuse_unknown(folder: Path, name: str, found: list[Json], rollouts: Sequence[Record]) -> None:
    """Raises NoReleaseError for a device that no record names; what cannot be read may be of any."""
    known = {each for line in found for each in (line["device"], *line["devices"]) if each}
    for made in rollouts:
        try:
            known |= set(made.load().devices)
        except ConfigurationError:
            return
    if name not in known and all(line["time"] for line in found):
        names = sorted(known)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        there = ", ".join(names[:SHOWN]) + more or "none"
        raise NoReleaseError(str(folder), f"no device {name!r}", f"one of: {there}", "")


def logs(options: argparse.Namespace) -> Json:
    files = sorted((options.rollouts / RUNS).glob("*/artifacts/stdout"))
    if not files:
        raise NoReleaseError(str(options.rollouts / RUNS), "no runs", "one of `fleet rollout`", "")
    text = files[-1].read_text(encoding="utf-8", errors="replace").rstrip("\n")
    return {"device": None, "file": str(files[-1]), "text": text}


class Reading(LiveProgress):
    """`said`: what Ansible registered of the task that reads the log."""

    said: Json | None = None

    def on_device_event(self, event: Mapping[str, Any]) -> bool:
        parsed = TaskEvent.parse(event)
        if parsed.task == READ and parsed.kind in ENDED:
            self.said = dict(parsed.result)
        return super().on_device_event(event)


def device_logs(options: argparse.Namespace) -> Json:
    """Through playbooks/logs.yml. Raises InventoryError, SourceError (out of reach), NoReleaseError (no log)."""
    device, live = model.load(options.inventory).device(options.device).name, Reading()
    with tempfile.TemporaryDirectory(prefix="fleet-logs-") as folder:  # what is only read leaves no record
        variables = {"log_lines": options.lines}
        broken = PlaybookRun("logs", options.inventory, Path(folder), variables, limit=device, live=live).failure()
    if live.stopped:
        raise broken
    told = live.said or {"msg": broken.found}
    why = " ".join(rollout_audit.plain(str(told.get("stderr") or told.get("msg") or "nothing")).split())
    text = told.get("stdout")
    if "stdout" not in told:  # out of reach, no right to, no Python
        more = f"ansible-playbook -i {options.inventory} playbooks/logs.yml --limit {device}"
        raise SourceError(device, why, "an answer", f"see what says more: {more}")
    if not isinstance(text, str) or not text:
        raise NoReleaseError(device, f"no log of edge-agent ({why})", "", "see playbooks/bootstrap.yml")
    return {"device": device, "file": None, "text": text}
