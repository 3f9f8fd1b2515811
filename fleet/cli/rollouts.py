"""`fleet rollout`, `fleet rollback`, `fleet give-up`: run the playbooks with live progress and distinct exit codes.

The steps that a playbook calls (steps.py) make every decision, so running a playbook with ansible-playbook gives the
same result as these commands. This module reads the results of the steps from Ansible's events and reports them as they
arrive (execution/live_progress.py). If the inventory declares workers, the workers connect to the devices
(execution/distributed.py).
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

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
Output = dict[str, object]


def add_commands(commands: Commands) -> None:
    """Add `fleet rollout`, `fleet rollback` and `fleet give-up` to the command line."""
    parser = command(
        commands,
        "rollout",
        "install on every device the release that the inventory declares",
        "Updates devices in waves. If a wave fails, devices are rolled back. If interrupted, run the command again.",
    )
    _add_playbook_options(parser)
    parser.add_argument(
        "--repository", default=FOLDER, metavar="WHERE", help=f"repository of releases: a folder or a URL ({FOLDER})"
    )
    parser.add_argument("--check", action="store_true", help="query every device and report; change nothing")
    parser.add_argument("--resume", action="store_true", help="resume the unfinished rollout; do not begin a new one")
    parser.add_argument(
        "--approve",
        action="append",
        default=[],
        metavar="WAVE",
        help="approve this wave; repeat the option for each wave",
    )
    parser.add_argument("--again", action="store_true", help="also try a release whose last rollout failed")
    parser.add_argument("--outside-window", action="store_true", help="ignore the maintenance window")
    parser.set_defaults(run=rollout, text=_text)
    parser = command(
        commands,
        "rollback",
        "roll devices back manually, each to its previous release",
        "Needs no repository. The unfinished rollout is abandoned.",
    )
    _add_playbook_options(parser)
    parser.add_argument(
        "--reason",
        required=True,
        type=_reason,
        metavar="TEXT",
        help="reason for the rollback; each device marks the release that it rolls back from as bad",
    )
    parser.add_argument(
        "--release", metavar="RELEASE", help="roll back to this installed release instead of the previous one"
    )
    parser.set_defaults(run=rollback, text=_text)
    parser = command(
        commands,
        "give-up",
        "abandon the unfinished rollout",
        "No device is queried. Failed devices roll back at the start of the next rollout. Other devices keep their "
        "release.",
    )
    _add_record_options(parser)
    parser.add_argument("--reason", required=True, type=_reason, metavar="TEXT", help="why")
    parser.set_defaults(run=abandon, text=_text)


def _add_record_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--inventory", type=Path, required=True, metavar="PATH", help="inventory/<fleet>")
    parser.add_argument(
        "--rollouts",
        type=Path,
        default=rollout_folder.ROLLOUTS,
        metavar="DIR",
        help="folder of the rollout records (rollouts)",
    )


def _add_playbook_options(parser: argparse.ArgumentParser) -> None:
    _add_record_options(parser)
    parser.add_argument(
        "--direct", action="store_true", help="connect to devices from this machine even if the inventory has workers"
    )
    parser.add_argument(
        "--limit", metavar="PATTERN", help="update or roll back only these devices or groups, in Ansible's syntax"
    )


def _reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("found nothing, expected a reason")
    return text


def rollout(options: argparse.Namespace) -> Output:
    """Roll out the releases that the inventory declares, and return the outcome.

    Raises PausedError if preflight refuses the rollout, and NoReleaseError if `--resume` finds no unfinished rollout.
    If any other step refuses to continue, its error is raised.
    """
    if options.resume:
        resume.require_resumable(model.load(options.inventory), options.inventory, options.rollouts)
    variables = {
        "rollout_repository": repository_storage.absolute_location(options.repository),
        "rollout_records": str(options.rollouts.resolve()),
        "rollout_approve": ",".join(options.approve),
        "rollout_again": options.again,
        "rollout_outside_window": options.outside_window,
    }
    run = _run_on_workers(options, "rollout") or _run_here(options, "rollout", variables, options.check)
    preflight, closed = run.live.steps.preflight, run.live.steps.closed
    if preflight is None:
        raise run.failure()
    if preflight.status == "refused":
        raise PausedError(
            str(options.inventory),
            preflight.reason,
            "devices that can run their releases",
            "fix the devices, or see docs/how-to/roll-out.md",
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


def rollback(options: argparse.Namespace) -> Output:
    """Run a manual rollback, and return its outcome with the devices that have not rolled back."""
    variables = {"rollout_records": str(options.rollouts.resolve()), "rollout_reason": options.reason}
    if options.release:
        variables["rollout_release"] = options.release
    run = _run_on_workers(options, "rollback") or _run_here(options, "rollback", variables)
    result = run.live.steps.manual_rollback
    if result is None:
        raise run.failure()
    return {
        "status": "failed" if result.failed else "back",
        "reason": ", ".join(result.failed),
        "table": result.table,
        "exit_code": RolloutError.exit_code if result.failed else 0,
    }


def abandon(options: argparse.Namespace) -> Output:
    """Abandon the unfinished rollout of a fleet, even if the rollout's process ran on another machine.

    Raises BusyError if the rollout's process is still running on this machine, and NoReleaseError if no rollout is
    unfinished.
    """
    record = resume.abandon_manually(model.load(options.inventory).name, options.rollouts, options.reason)
    state = record.load()
    result = {"id": record.id, "status": state.status, "reason": state.reason, "record": str(record.folder)}
    return {**result, "table": report.table(state)}


def _run_here(
    options: argparse.Namespace, playbook: str, variables: dict[str, str | bool], check: bool = False
) -> PlaybookRun:
    return PlaybookRun(playbook, options.inventory, options.rollouts, variables, limit=options.limit, check=check)


def _run_on_workers(options: argparse.Namespace, playbook: str) -> DistributedRun | None:
    """Run the steps of a playbook through the inventory's workers, and return the run.

    Return None if the inventory declares no workers or if the operator passed `--direct`.
    """
    is_rollout = playbook == "rollout"
    listing = read_listing(options.inventory) if is_rollout or not options.direct else Listing()
    if options.direct or not workers.are_declared(listing):
        if is_rollout:  # a rollback works without a valid inventory: Ansible reaches the devices that it can
            model.load(options.inventory, listing)
        if options.limit:
            model.limited_devices(options.inventory, options.limit)
        return None
    run = DistributedRun(options, listing, run_folder(options.rollouts, playbook))
    with run.live, contextlib.suppress(StoppedError), contextlib.closing(run):
        if is_rollout:
            run.rollout(_plan_arguments(options, run), options.check)
        else:
            run.rollback(options.reason, options.release)
    return run


def _plan_arguments(options: argparse.Namespace, run: DistributedRun) -> list[str]:
    """Return the arguments of `fleet wave plan` for the options of `fleet rollout`.

    playbooks/roles/rollout/tasks/plan.yml passes the same arguments.
    """
    return [
        *("--inventory", str(options.inventory.resolve())),
        *("--repository", repository_storage.absolute_location(options.repository)),
        *("--rollouts", str(options.rollouts.resolve())),
        *(("--only", ",".join(run.devices)) if options.limit else ()),
        *("--approve", ",".join(options.approve)),
        *(("--again",) if options.again else ()),
        *(("--outside-window",) if options.outside_window else ()),
    ]


def _text(result: Output) -> str:
    head = f"rollout {result['id']}: {result['status']}" if result.get("id") else str(result["status"])
    reason = f": {result['reason']}" if result["reason"] else ""
    table = result["table"]
    return "\n".join([f"{head}{reason}", *(table if isinstance(table, list) else [])])
