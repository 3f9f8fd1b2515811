"""`fleet wave ...`: the steps of a rollout that are decided on the controller, called by playbooks/rollout.yml.

JSON on stdin where a step needs what devices said, JSON on stdout. A person calls `fleet rollout`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet import audit_log
from fleet.cli.main import Commands, command, fleet_name
from fleet.devices.messages import Status, answer
from fleet.errors import ConfigurationError
from fleet.records import rollout_folder

if TYPE_CHECKING:  # imported by the steps that need them: a rollout waits for a dozen of these programs
    from fleet.releases.workspace import Workspace
    from fleet.rollout.controller import Course

Json = dict[str, Any]
STEPS = {
    "plan": "what is to run where, checked; changes nothing",
    "preflight": "who can take it, in which waves; begins the record",
    "open": "whether a wave may begin",
    "bake": "whether a wave is lost already; else wait until it is looked at again",
    "judge": "the verdict on a wave",
    "settle": "who has to go back, and to which release",
    "close": "the end: outcome and report",
    "idle": "refuses while a rollout of the fleet runs; what is unfinished may be",
    "recall": "before devices are called back by hand: gives up the rollout that is unfinished",
    "recalled": "after it: who is back",
    "metadata": "pack the repository's metadata for devices, without a release",
}


def add_commands(commands: Commands) -> None:
    to = command(commands, "wave", "one step of a rollout (playbooks/rollout.yml calls it)")
    steps = to.add_subparsers(dest="action", required=True, metavar="STEP")
    for name, summary in STEPS.items():
        step = command(steps, name, summary)
        step.set_defaults(run=RUN[name], text=lambda result: json.dumps(result, indent=2))
        if name in ("idle", "recall", "recalled", "metadata"):
            step.add_argument("--rollouts", type=Path, default=rollout_folder.ROLLOUTS, metavar="DIR")
            step.add_argument("--fleet", type=fleet_name, required=True, metavar="NAME")
            if name in ("recall", "recalled"):
                step.add_argument("--every", action="store_true", help="whatever a device runs, it is called back")
            if name == "recalled":
                step.add_argument("--reason", default="", metavar="TEXT")
            elif name == "metadata":
                step.add_argument("--repository", default="releases", metavar="WHERE", help="of releases (releases)")
        elif name in ("plan", "preflight"):
            step.add_argument("--rollouts", type=Path, default=rollout_folder.ROLLOUTS, metavar="DIR")
        else:
            step.add_argument("--record", type=Path, required=True, metavar="DIR", help="rollouts/<fleet>/<id>")
        if name == "plan":
            step.add_argument("-i", "--inventory", type=Path, required=True, metavar="PATH")
            step.add_argument("--only", metavar="DEVICES", help="no others change; names with commas between")
            step.add_argument("--outside-window", action="store_true", help="the maintenance window does not count")
            step.add_argument("--again", action="store_true", help="also a release that failed last time")
        elif name == "preflight":
            step.add_argument("--check", action="store_true", help="say what would be; write nothing")
        if name in ("plan", "open"):
            step.add_argument("--repository", default="releases", metavar="WHERE", help="of releases (releases)")
            step.add_argument("--approve", default="", metavar="WAVES", help="may begin; names with commas between")


def _plan(options: argparse.Namespace) -> Json:
    from fleet.releases import repository_storage
    from fleet.rollout.plan import plan_rollout

    only, approve = _listed(options.only or "") or None, _listed(options.approve)
    repository = _workplace(options).open_repository(write=False)
    window, again = options.outside_window, options.again
    planned = plan_rollout(options.inventory, repository, options.rollouts, only, window, again, approve)
    return {
        **planned,
        "repository": planned["repository"] and repository_storage.absolute_location(options.repository),
    }  # for preflight


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _preflight(options: argparse.Namespace) -> Json:
    from fleet.rollout.preflight import run_preflight

    said = _stdin()
    planned = {name: value for name, value in said["plan"].items() if name not in ("schema_version", "command")}
    return run_preflight(planned, _answers(said["devices"]), options.rollouts, options.check)


def _open(options: argparse.Namespace) -> Json:
    from fleet.rollout import bake, payload

    course = _course(options)
    devices = _stdin()["devices"]
    approved = course.wave_of(devices).name in _listed(options.approve)
    renew = partial(payload.renew, course.record, where=options.repository)
    opened = course.open(devices, audit_log.current_user() if approved else None, renew)
    return {**opened, "looks": bake.looks(course.rules.bake_s, course.rules.bake_poll_s)}


def _bake(options: argparse.Namespace) -> Json:
    from fleet.rollout import bake

    said = _stdin()
    outcomes = {name: outcome for name, (outcome, _) in _switched(said["switched"]).items()}
    asked = {name: told["status"] for name, told in _answers(said["asked"]).items()}
    # The machine's monotonic clock, which the next step, another process, reads too.
    found = bake.watch(_course(options), outcomes, asked, said["looked"], time.monotonic())
    time.sleep(found["wait_s"])  # the bake itself: that a release stays well is announced by nothing
    return found


def _judge(options: argparse.Namespace) -> Json:
    said = _stdin()
    asked = _answers(said["asked"])
    devices = {
        name: {"outcome": outcome, "reason": reason, "status": asked[name]["status"]}
        for name, (outcome, reason) in _switched(said["switched"]).items()
    }
    rest = {result["item"]: answer(result, Status)["status"] for result in said["rest"]}
    course = _course(options)
    judged = course.judge(devices, rest)
    # Whoever is well need not be asked again by `settle` where this was the last wave.
    return {**judged, "well": [name for name, told in devices.items() if course.is_well(name, told["status"])]}


def _switched(said: Json) -> dict[str, tuple[str, str]]:
    return {name: _deployed(told, said["trouble"][name]) for name, told in said["deployed"].items()}


def _deployed(deployed: Json, trouble: str) -> tuple[str, str]:
    """Outcome and reason of a device's switch, from what Ansible registered of its tasks."""
    if deployed.get("unreachable"):
        return "unreachable", str(deployed.get("msg", "unreachable"))
    if trouble:
        return "failed", trouble
    if deployed.get("rc") == 0:
        return "ok", ""
    return "failed", answer(deployed)["reason"]


def _answers(results: Json) -> dict[str, Json]:
    return {name: answer(result, Status) for name, result in results.items()}


def _settle(options: argparse.Namespace) -> Json:
    return _course(options).settle({name: told["status"] for name, told in _answers(_stdin()["devices"]).items()})


def _close(options: argparse.Namespace) -> Json:
    return _course(options).close(_answers(_stdin()["devices"]))


def _idle(options: argparse.Namespace) -> Json:
    """Raises BusyError. What a record that cannot be read is of does not run."""
    with contextlib.suppress(ConfigurationError):
        rollout_folder.unfinished(options.fleet, options.rollouts)
    return {"fleet": options.fleet}


def _recall(options: argparse.Namespace) -> Json:
    from fleet.rollout import manual_rollback

    return manual_rollback.begin(options.fleet, options.rollouts, options.every)


def _recalled(options: argparse.Namespace) -> Json:
    from fleet.rollout import manual_rollback

    said = _stdin()
    devices = {}
    for name, told in _answers(said["asked"]).items():
        left = bool(said["back"][name].get("skipped"))
        done = {"status": None, "reason": ""} if left else answer(said["back"][name])
        reason = done["reason"] or told["reason"]
        devices[name] = {"said": done["status"], "status": told["status"], "reason": reason, "left": left}
    return manual_rollback.end(options.fleet, options.rollouts, devices, options.reason, options.every)


def _metadata(options: argparse.Namespace) -> Json:
    from fleet.rollout import payload

    file = options.rollouts / options.fleet / "metadata.tar"
    with (
        _workplace(options).open_repository(write=False) as repository,
        rollout_folder.locked(options.fleet, options.rollouts),
    ):
        payload.pack(repository, [], file)
        return {"file": str(file.resolve()), "root": repository.root.version}


def _workplace(options: argparse.Namespace) -> Workspace:
    from fleet.releases.workspace import Workspace

    return Workspace(options.repository)


def _course(options: argparse.Namespace) -> Course:
    from fleet.rollout.controller import Course

    return Course(options.record)


def _stdin() -> Json:
    try:
        return dict(json.load(sys.stdin))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            "stdin", f"no JSON object ({error})", "what playbooks/rollout.yml passes", ""
        ) from None


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
