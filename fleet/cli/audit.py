"""`fleet audit`: print the audit trail of a fleet's rollouts and manual rollbacks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from fleet import audit_log
from fleet.cli.main import Commands, command, fleet_name
from fleet.errors import ConfigurationError, NoReleaseError
from fleet.records import rollout_audit, rollout_folder
from fleet.records.rollout_audit import AuditLine
from fleet.records.rollout_folder import Record

SHOWN = 10  # maximum number of device names in an error message


def add_commands(commands: Commands) -> None:
    """Add `fleet audit` to the command line."""
    parser = command(commands, "audit", "print who changed what on which device, when and with what result, as CSV")
    parser.add_argument(
        "--rollouts",
        type=Path,
        default=rollout_folder.ROLLOUTS,
        metavar="DIR",
        help="folder of the rollout records (rollouts)",
    )
    parser.add_argument(
        "--fleet", type=fleet_name, required=True, metavar="NAME", help="name of the fleet in the inventory"
    )
    parser.add_argument("--device", metavar="NAME", help="print only the lines about this device")
    parser.add_argument(
        "--since",
        type=_time,
        metavar="TIME",
        help="print changes from this time on: ISO 8601 with a time zone, such as 2026-01-01T00:00:00Z",
    )
    parser.add_argument(
        "--until", type=_time, metavar="TIME", help="print changes before this time: ISO 8601 with a time zone"
    )
    parser.set_defaults(run=audit, text=_text)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected ISO 8601 with a time zone, such as 2026-01-01T00:00:00Z"
        )
    return time


def audit(options: argparse.Namespace) -> dict[str, object]:
    """Return the audit lines of all rollouts and manual rollbacks of a fleet, oldest first.

    Raises NoReleaseError if the fleet has no records, or if no record mentions the device that the operator named.
    """
    folder = options.rollouts / options.fleet
    if not folder.is_dir():
        fleets = sorted(path.name for path in options.rollouts.glob("[!.]*") if path.is_dir())
        raise NoReleaseError(
            str(folder),
            "no rollouts are recorded",
            f"a fleet with recorded rollouts: {', '.join(fleets) or 'none'}",
            "name a fleet with --fleet, or the folder of the records with --rollouts",
        )
    records = rollout_folder.rollouts(options.fleet, options.rollouts)
    lines = rollout_audit.read(records, folder / audit_log.FILE)
    if options.device is not None:
        _require_device(folder, options.device, lines, records)
    selected = rollout_audit.select(lines, options.device, options.since, options.until)
    return {"fleet": options.fleet, "lines": [line.as_json() for line in selected]}


def _require_device(folder: Path, name: str, lines: list[AuditLine], records: Sequence[Record]) -> None:
    """Raise NoReleaseError if all records can be read and none of them mentions the device.

    If a record cannot be read, nothing is raised, because this record could mention the device.
    """
    devices = {each for line in lines for each in (line.device, *line.devices) if each}
    for record in records:
        try:
            devices |= set(record.load().devices)
        except ConfigurationError:
            return
    if name not in devices and all(line.time for line in lines):
        names = sorted(devices)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        listed = ", ".join(names[:SHOWN]) + more or "none"
        raise NoReleaseError(
            str(folder),
            f"the records do not mention the device {name!r}",
            f"one of: {listed}",
            "correct the name after --device",
        )


def _text(result: dict[str, list[dict[str, object]]]) -> str:
    return rollout_audit.as_csv(result["lines"]).rstrip("\n")
