"""`fleet rollout`, `fleet rollback`: the playbooks through ansible-runner, with live progress and exit codes that tell.

What is decided is decided by the playbook's own steps (steps.py): run by hand with ansible-playbook, it does the
same. Here their answers are read from Ansible's events, and said as they come (execution/live_progress.py). Where the
inventory has workers, those work on the devices (execution/distributed.py).
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from fleet.cli.main import Commands, command
from fleet.errors import PausedError, RolloutError
from fleet.execution.distributed import DistributedRun, StoppedError
from fleet.execution.playbook import PlaybookRun, run_folder
from fleet.inventory import model, workers
from fleet.inventory.listing import Listing, read_listing
from fleet.records import report, rollout_folder
from fleet.releases import repository_storage
from fleet.releases.workspace import FOLDER
from fleet.rollout import resume

EXIT = {"passed": 0, "unchanged": 0, "ready": 0, "resumed": 0, "failed": RolloutError.exit_code}
Json = dict[str, Any]


def add_commands(commands: Commands) -> None:
    to = command(
        commands,
        "rollout",
        "bring every device to the release that the inventory declares",
        "In waves; what turns out bad goes back. Run again after whatever ended it, it goes on where it stopped.",
    )
    _common(to)
    to.add_argument("--repository", default=FOLDER, metavar="WHERE", help=f"of releases: a folder or a URL ({FOLDER})")
    to.add_argument("--check", action="store_true", help="ask every device, say what would be, change nothing")
    to.add_argument("--resume", action="store_true", help="go on with the rollout that is unfinished, begin none")
    to.add_argument("--approve", action="append", default=[], metavar="WAVE", help="this wave may begin")
    to.add_argument("--again", action="store_true", help="also a release that failed in the last rollout")
    to.add_argument("--outside-window", action="store_true", help="the maintenance window does not count")
    to.set_defaults(run=rollout, text=_text)
    to = command(
        commands,
        "rollback",
        "call devices back by hand, to the release that each ran before",
        "Needs no repository. The rollout that is unfinished is given up.",
    )
    _common(to)
    to.add_argument("--reason", required=True, type=_said, metavar="TEXT", help="why; marks what is left as bad")
    to.add_argument("--release", metavar="RELEASE", help="another installed release")
    to.set_defaults(run=rollback, text=_text)
    to = command(
        commands,
        "give-up",
        "end the rollout that is unfinished, where it stands",
        "No device is asked. What of it has failed goes back with the next run; what has not stays as it is.",
    )
    _recorded(to)
    to.add_argument("--reason", required=True, type=_said, metavar="TEXT", help="why")
    to.set_defaults(run=give_up, text=_text)


def _recorded(to: argparse.ArgumentParser) -> None:
    to.add_argument("-i", "--inventory", type=Path, required=True, metavar="PATH", help="inventory/<fleet>")
    to.add_argument("--rollouts", type=Path, default=rollout_folder.ROLLOUTS, metavar="DIR", help="records (rollouts)")


def _common(to: argparse.ArgumentParser) -> None:
    _recorded(to)
    to.add_argument("--direct", action="store_true", help="from here, although the inventory has workers")
    to.add_argument("--limit", metavar="PATTERN", help="only these devices or groups, as Ansible names them")


def _said(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("found nothing, expected why")
    return text


def rollout(options: argparse.Namespace) -> Json:
    if options.resume:
        resume.require_resumable(model.load(options.inventory), options.inventory, options.rollouts)
    variables: Json = {
        "rollout_repository": repository_storage.absolute_location(options.repository),
        "rollout_records": str(options.rollouts.resolve()),
        "rollout_approve": ",".join(options.approve),
        "rollout_again": options.again,
        "rollout_outside_window": options.outside_window,
    }
    run = _remote(options, "rollout") or _local(options, "rollout", variables, options.check)
    preflight, closed = run.live.steps.preflight, run.live.steps.closed
    if preflight is None:
        raise run.failure()
    if preflight.status == "refused":
        raise PausedError(
            str(options.inventory), preflight.reason, "devices that can take it", "mend them, or see docs"
        )
    if closed is None and preflight.go and not options.check:
        raise run.failure()
    outcome = closed or preflight
    return {
        "id": closed.id if closed else None,
        "status": outcome.status,
        "reason": outcome.reason,
        "table": outcome.table,
        "record": closed.record if closed else None,
        "check": options.check,
        "exit_code": EXIT.get(outcome.status, PausedError.exit_code),
    }


def rollback(options: argparse.Namespace) -> Json:
    variables = {"rollout_records": str(options.rollouts.resolve()), "rollout_reason": options.reason}
    if options.release:
        variables["rollout_release"] = options.release
    run = _remote(options, "rollback") or _local(options, "rollback", variables)
    result = run.live.steps.manual_rollback
    if result is None:
        raise run.failure()
    status = "failed" if result.failed else "back"
    code = RolloutError.exit_code if result.failed else 0
    return {"status": status, "reason": ", ".join(result.failed), "table": result.table, "exit_code": code}


def give_up(options: argparse.Namespace) -> Json:
    """Also where its process ran on another machine. Raises BusyError, NoReleaseError."""
    begun = resume.give_up_by_hand(model.load(options.inventory).name, options.rollouts, options.reason)
    state = begun.load()
    told = {"id": begun.id, "status": state.status, "reason": state.reason, "record": str(begun.folder)}
    return {**told, "table": report.table(state)}


def _local(options: argparse.Namespace, playbook: str, variables: Json, check: bool = False) -> PlaybookRun:
    return PlaybookRun(playbook, options.inventory, options.rollouts, variables, limit=options.limit, check=check)


def _remote(options: argparse.Namespace, what: str) -> DistributedRun | None:
    """A run to its end through the workers that the inventory declares; None where there are none."""
    forward = what == "rollout"
    listing = read_listing(options.inventory) if forward or not options.direct else Listing()
    if options.direct or not workers.are_declared(listing):
        if forward:  # a rollback goes as far as Ansible can
            model.load(options.inventory, listing)
        if options.limit:
            model.limited_devices(options.inventory, options.limit)
        return None
    run = DistributedRun(options, listing, run_folder(options.rollouts, what))
    with run.live, contextlib.suppress(StoppedError), contextlib.closing(run):
        if forward:
            run.rollout(_plan(options, run), options.check)
        else:
            run.rollback(options.reason, options.release)
    return run


def _plan(options: argparse.Namespace, run: DistributedRun) -> list[str]:
    """As playbooks/roles/rollout/tasks/plan.yml has it."""
    return [
        *("--inventory", str(options.inventory.resolve())),
        *("--repository", repository_storage.absolute_location(options.repository)),
        *("--rollouts", str(options.rollouts.resolve())),
        *(("--only", ",".join(run.devices)) if options.limit else ()),
        *("--approve", ",".join(options.approve)),
        *(("--again",) if options.again else ()),
        *(("--outside-window",) if options.outside_window else ()),
    ]


def _text(result: Json) -> str:
    head = f"rollout {result['id']}: {result['status']}" if result.get("id") else result["status"]
    reason = f": {result['reason']}" if result["reason"] else ""
    return "\n".join([f"{head}{reason}", *(result["table"] or [])])
