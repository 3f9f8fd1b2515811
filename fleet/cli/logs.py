"""`fleet logs`: print the log of a device's agent, or what Ansible printed during the last rollout or rollback."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fleet.cli.main import Commands, command
from fleet.devices.messages import TaskResult
from fleet.errors import NoReleaseError, SourceError
from fleet.execution.live_progress import LiveProgress, TaskEvent
from fleet.execution.playbook import RUNS, PlaybookRun
from fleet.inventory import model
from fleet.records import rollout_audit, rollout_folder

READ_LOG = "Read the log"  # the task of playbooks/roles/edge_agent/tasks/logs.yml
ENDED = ("runner_on_ok", "runner_on_failed", "runner_on_unreachable")
LINES, MOST_LINES = 100, 10_000
Output = dict[str, str | None]


def add_commands(commands: Commands) -> None:
    """Add `fleet logs` to the command line."""
    parser = command(
        commands,
        "logs",
        "print the log of a device's agent; without a device, the output of Ansible's last run",
        "The log is the journal of edge-agent.service, or the log file of a simulated device. Ansible's last run is "
        "the last rollout or rollback.",
    )
    parser.add_argument(
        "--rollouts",
        type=Path,
        default=rollout_folder.ROLLOUTS,
        metavar="DIR",
        help="folder of the rollout records (rollouts)",
    )
    parser.add_argument("device", nargs="?", metavar="DEVICE", help="name of the device in the inventory")
    parser.add_argument(
        "-i", "--inventory", type=Path, metavar="PATH", help="inventory/<fleet>, required with a device"
    )
    parser.add_argument(
        "--lines",
        type=_lines,
        default=LINES,
        metavar="N",
        help=f"number of lines to print from the end of a device's log ({LINES})",
    )
    parser.set_defaults(run=_choose(parser), text=lambda result: rollout_audit.plain(result["text"]))


def _lines(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= MOST_LINES:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1 to {MOST_LINES}")
    return number


def _choose(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], Output]:
    def run(options: argparse.Namespace) -> Output:
        if (options.device is None) != (options.inventory is None):
            parser.error("DEVICE and -i/--inventory: expected both, or neither")
        return ansible_log(options) if options.device is None else device_log(options)

    return run


def ansible_log(options: argparse.Namespace) -> Output:
    """Return what Ansible printed during the last rollout or rollback. Raises NoReleaseError if there is none."""
    files = sorted((options.rollouts / RUNS).glob("*/artifacts/stdout"))
    if not files:
        raise NoReleaseError(
            str(options.rollouts / RUNS),
            "no runs are recorded",
            "a run of `fleet rollout` or `fleet rollback`",
            "run one of these commands, or name the folder of the records with --rollouts",
        )
    text = files[-1].read_text(encoding="utf-8", errors="replace").rstrip("\n")
    return {"device": None, "file": str(files[-1]), "text": text}


class LogReader(LiveProgress):
    """Reports the progress of playbooks/logs.yml, and keeps the result of the task that reads the log.

    The result is stored in `log_task`, which is None until the task has ended.
    """

    log_task: TaskResult | None = None

    def on_device_event(self, event: Mapping[str, Any]) -> bool:
        """Keep the result of the task that reads the log, and report the event as LiveProgress does."""
        parsed = TaskEvent.parse(event)
        if parsed.task == READ_LOG and parsed.kind in ENDED:
            self.log_task = TaskResult.model_validate(dict(parsed.result))
        return super().on_device_event(event)


def device_log(options: argparse.Namespace) -> Output:
    """Return the log of the agent on a device, which playbooks/logs.yml reads from the device.

    Raises InventoryError if the inventory is not valid, SourceError if the device cannot be reached, and NoReleaseError
    if the device has no log.
    """
    device, live = model.load(options.inventory).device(options.device).name, LogReader()
    # A command that only reads leaves no record behind.
    with tempfile.TemporaryDirectory(prefix="fleet-logs-") as folder:
        variables = {"log_lines": options.lines}
        failure = PlaybookRun("logs", options.inventory, Path(folder), variables, limit=device, live=live).failure()
    if live.stopped:
        raise failure
    task = live.log_task or TaskResult(msg=failure.found)
    reason = " ".join(rollout_audit.plain(str(task.stderr or task.msg or "nothing")).split())
    if "stdout" not in task.model_fields_set:  # the device is unreachable or has no Python, or permission is missing
        more = f"ansible-playbook -i {options.inventory} playbooks/logs.yml --limit {device}"
        raise SourceError(device, reason, "the log of the device", f"to see the details, run: {more}")
    if not isinstance(task.stdout, str) or not task.stdout:
        raise NoReleaseError(
            device,
            f"no log of edge-agent ({reason})",
            "at least one line in the log",
            "set up the device with playbooks/bootstrap.yml",
        )
    return {"device": device, "file": None, "text": task.stdout}
