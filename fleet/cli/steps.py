"""`fleet wave ...`: the steps of a rollout that make its decisions. playbooks/rollout.yml calls them on the controller.

A step prints its result as JSON. If a step needs the responses of devices, it reads them as JSON from stdin
(step_inputs.py). Operators call `fleet rollout` instead of these steps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fleet import audit_log
from fleet.cli import step_inputs
from fleet.cli.main import Commands, command, fleet_name
from fleet.devices.messages import CommandResponse, StatusResponse, parse_command, parse_status
from fleet.errors import ConfigurationError
from fleet.records import rollout_folder

if TYPE_CHECKING:  # imported only by steps that need them, because a rollout runs a dozen of these processes
    from fleet.releases.workspace import Workspace
    from fleet.rollout.controller import RolloutController

StepOutput = dict[str, object]
STEPS = {
    "plan": "plan which device is to run which release, without changing anything",
    "preflight": "decide which devices are updated in which waves, and create the rollout's record",
    "open": "decide whether a wave may begin",
    "bake": "check whether a wave has failed already; if it has not, wait until the next check",
    "judge": "compute the verdict on a wave",
    "settle": "decide which devices roll back, and to which release",
    "close": "end the rollout and write its report",
    "idle": "check that no process is running a rollout of the fleet; an unfinished rollout is accepted",
    "recall": "before a manual rollback: abandon the unfinished rollout",
    "recalled": "after a manual rollback: record which devices have rolled back",
    "metadata": "pack the repository's metadata for devices, without a release",
}


def add_commands(commands: Commands) -> None:
    """Add `fleet wave` and its steps to the command line."""
    wave = command(commands, "wave", "run one step of a rollout (playbooks call this command)")
    steps = wave.add_subparsers(dest="action", required=True, metavar="STEP")
    for name, summary in STEPS.items():
        step = command(steps, name, summary)
        step.set_defaults(run=RUN[name], text=lambda result: json.dumps(result, indent=2))
        if name in ("idle", "recall", "recalled", "metadata"):
            step.add_argument("--rollouts", type=Path, default=rollout_folder.ROLLOUTS, metavar="DIR")
            step.add_argument("--fleet", type=fleet_name, required=True, metavar="NAME")
            if name in ("recall", "recalled"):
                step.add_argument(
                    "--every", action="store_true", help="roll back every device, whichever release it runs"
                )
            if name == "recalled":
                step.add_argument("--reason", default="", metavar="TEXT")
            elif name == "metadata":
                step.add_argument(
                    "--repository",
                    default="releases",
                    metavar="WHERE",
                    help="repository of releases: a folder or a URL (releases)",
                )
        elif name in ("plan", "preflight"):
            step.add_argument("--rollouts", type=Path, default=rollout_folder.ROLLOUTS, metavar="DIR")
        else:
            step.add_argument(
                "--record",
                type=Path,
                required=True,
                metavar="DIR",
                help="rollouts/<fleet>/<id>",
            )
        if name == "plan":
            step.add_argument("-i", "--inventory", type=Path, required=True, metavar="PATH")
            step.add_argument("--only", metavar="DEVICES", help="update only these devices; names separated by commas")
            step.add_argument("--outside-window", action="store_true", help="ignore the maintenance window")
            step.add_argument("--again", action="store_true", help="also try a release whose last rollout failed")
        elif name == "preflight":
            step.add_argument("--check", action="store_true", help="only report; write nothing")
        if name in ("plan", "open"):
            step.add_argument(
                "--repository",
                default="releases",
                metavar="WHERE",
                help="repository of releases: a folder or a URL (releases)",
            )
            step.add_argument(
                "--approve", default="", metavar="WAVES", help="approved waves; names separated by commas"
            )


def _plan(options: argparse.Namespace) -> StepOutput:
    from fleet.releases import repository_storage
    from fleet.rollout.plan import PlanOptions, plan_rollout

    requested = PlanOptions(
        only=_names(options.only or "") or None,
        outside_window=options.outside_window,
        again=options.again,
        approve=_names(options.approve),
    )
    repository = _workspace(options).open_repository(write=False)
    plan = plan_rollout(options.inventory, repository, options.rollouts, requested)
    # `preflight` opens the repository again, so the plan stores the repository's location, not the folder of a local
    # copy.
    location = plan.repository and repository_storage.absolute_location(options.repository)
    return {**plan.as_json(), "repository": location}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _preflight(options: argparse.Namespace) -> StepOutput:
    from fleet.rollout.preflight import run_preflight

    inputs = step_inputs.read_stdin(step_inputs.PreflightInput)
    return run_preflight(inputs.plan, inputs.responses(), options.rollouts, options.check).as_json()


def _open(options: argparse.Namespace) -> StepOutput:
    from fleet.rollout import bake, payload

    controller = _controller(options)
    devices = step_inputs.read_stdin(step_inputs.DeviceNames).devices
    approved = controller.wave_of(devices).name in _names(options.approve)
    refresh = partial(payload.refresh_payload, controller.record, location=options.repository)
    opening = controller.open_wave(devices, audit_log.current_user() if approved else None, refresh)
    policy = controller.policy
    return {**opening.as_json(), "looks": bake.max_looks(policy.bake_s, policy.bake_poll_s)}


def _bake(options: argparse.Namespace) -> StepOutput:
    from fleet.rollout import bake

    inputs = step_inputs.read_stdin(step_inputs.BakeInput)
    outcomes = {name: outcome for name, (outcome, _) in inputs.switched.deploy_outcomes().items()}
    # The monotonic clock is the same for all processes of a machine, so the next step's process can use its time.
    look = bake.look(_controller(options), outcomes, inputs.statuses(), inputs.looked, time.monotonic())
    time.sleep(look.wait_s)  # the wave bakes during this pause
    return look.as_json()


def _judge(options: argparse.Namespace) -> StepOutput:
    from fleet.rollout.controller import DeployOutcome

    inputs = step_inputs.read_stdin(step_inputs.JudgeInput)
    responses = step_inputs.parse_statuses(inputs.asked)
    devices = {
        name: DeployOutcome(outcome, reason, responses[name].status)
        for name, (outcome, reason) in inputs.switched.deploy_outcomes().items()
    }
    control_group = {result.item: parse_status(result).status for result in inputs.rest}
    controller = _controller(options)
    verdict = controller.judge_wave(devices, control_group)
    # After the last wave, `settle` need not query confirmed devices again.
    confirmed = [name for name, device in devices.items() if controller.is_confirmed(name, device.status)]
    return {**verdict.as_json(), "well": confirmed}


def _settle(options: argparse.Namespace) -> StepOutput:
    responses = step_inputs.read_stdin(step_inputs.DeviceStatuses).responses()
    statuses = {name: response.status for name, response in responses.items()}
    return _controller(options).decide_rollbacks(statuses).as_json()


def _close(options: argparse.Namespace) -> StepOutput:
    responses = step_inputs.read_stdin(step_inputs.DeviceStatuses).responses()
    return _controller(options).close(responses).as_json()


def _idle(options: argparse.Namespace) -> StepOutput:
    """Check that no process is running a rollout of the fleet. Raises BusyError if one is.

    A rollout whose record cannot be read counts as not running.
    """
    with contextlib.suppress(ConfigurationError):
        rollout_folder.unfinished(options.fleet, options.rollouts)
    return {"fleet": options.fleet}


def _recall(options: argparse.Namespace) -> StepOutput:
    from fleet.rollout.manual_rollback import begin_manual_rollback

    return begin_manual_rollback(options.fleet, options.rollouts, options.every).as_json()


def _recalled(options: argparse.Namespace) -> StepOutput:
    from fleet.rollout.manual_rollback import ManualRollback, finish_manual_rollback

    inputs = step_inputs.read_stdin(step_inputs.ManualRollbackInput)
    devices = {}
    for name, response in step_inputs.parse_statuses(inputs.asked).items():
        task = inputs.back[name]
        rollback = CommandResponse(None) if task.skipped else parse_command(task)
        reason = rollback.reason or response.reason
        devices[name] = ManualRollback(rollback.result, StatusResponse(response.status, reason), bool(task.skipped))
    return finish_manual_rollback(options.fleet, options.rollouts, devices, options.reason, options.every).as_json()


def _metadata(options: argparse.Namespace) -> StepOutput:
    from fleet.rollout import payload

    file = options.rollouts / options.fleet / "metadata.tar"
    with (
        _workspace(options).open_repository(write=False) as repository,
        rollout_folder.locked(options.fleet, options.rollouts),
    ):
        payload.write_archive(repository, [], file)
        return {"file": str(file.resolve()), "root": repository.root.version}


def _workspace(options: argparse.Namespace) -> Workspace:
    from fleet.releases.workspace import Workspace

    return Workspace(options.repository)


def _controller(options: argparse.Namespace) -> RolloutController:
    from fleet.rollout.controller import RolloutController

    return RolloutController(options.record)


RUN = {
    "plan": _plan,
    "preflight": _preflight,
    "open": _open,
    "bake": _bake,
    "judge": _judge,
    "settle": _settle,
    "close": _close,
    "idle": _idle,
    "recall": _recall,
    "recalled": _recalled,
    "metadata": _metadata,
}
