"""`fleet rollout`, `fleet rollback`: the playbooks through ansible-runner, with live progress and exit codes that tell.

What is decided is decided by the playbook's own steps (fleet/waves.py): run by hand with ansible-playbook, it does the
same. Here their answers are read from Ansible's events, and said as they come.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import ansible_runner
from edge_agent.progress import Progress

from fleet import record
from fleet.cli import Commands, command
from fleet.errors import EXIT_INTERRUPTED, FleetError, NoReleaseError, PausedError, RolloutError
from fleet.workplace import FOLDER

HERE = Path(__file__).parents[1]
RUNS = ".runs"
EXIT = {"passed": 0, "unchanged": 0, "ready": 0, "resumed": 0, "failed": RolloutError.exit_code}
SWITCH = "Install, test and switch"
Json = dict[str, Any]


def add_commands(commands: Commands) -> None:
    to = command(
        commands,
        "rollout",
        "bring every device to the release that the inventory declares",
        "In waves; what turns out bad goes back. Run again after whatever ended it, it goes on where it stopped.",
    )
    _common(to)
    to.add_argument("--repository", type=Path, default=Path(FOLDER), metavar="DIR", help=f"releases ({FOLDER})")
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
    to.add_argument("--reason", required=True, metavar="TEXT", help="why; marks the release that is left as bad")
    to.add_argument("--release", metavar="RELEASE", help="another installed release")
    to.set_defaults(run=rollback, text=_text)


def _common(to: argparse.ArgumentParser) -> None:
    to.add_argument("-i", "--inventory", type=Path, required=True, metavar="PATH", help="inventory/<fleet>")
    to.add_argument("--rollouts", type=Path, default=record.ROLLOUTS, metavar="DIR", help="records (rollouts)")
    to.add_argument("--limit", metavar="PATTERN", help="only these devices or groups, as Ansible names them")


def rollout(options: argparse.Namespace) -> Json:
    if options.resume:
        _unfinished(options)
    variables: Json = {
        "rollout_repository": str(options.repository.resolve()),
        "rollout_records": str(options.rollouts.resolve()),
        "rollout_approve": ",".join(options.approve),
        "rollout_again": options.again,
        "rollout_outside_window": options.outside_window,
    }
    run = Run(options, "rollout", variables, check=options.check)
    ready, closed = run.answers.get("wave preflight"), run.answers.get("wave close")
    if ready is None:
        raise run.broken()
    if ready["status"] == "refused":
        raise PausedError(str(options.inventory), ready["reason"], "devices that can take it", "mend them, or see docs")
    if closed is None and ready["go"] and not options.check:
        raise run.broken()
    result = closed or {"id": None, "status": ready["status"], "reason": ready["reason"], "table": ready["table"]}
    told = {key: result.get(key) for key in ("id", "status", "reason", "table", "record")}
    return {**told, "check": options.check, "exit_code": EXIT.get(result["status"], PausedError.exit_code)}


def _unfinished(options: argparse.Namespace) -> None:
    from fleet import inventory

    fleet = inventory.load(options.inventory)
    with record.locked(fleet.name, options.rollouts):
        if record.unfinished(fleet.name, options.rollouts) is None:
            raise NoReleaseError(
                str(options.rollouts / fleet.name),
                "no rollout is unfinished",
                "one to go on with",
                "leave out --resume",
            )


def rollback(options: argparse.Namespace) -> Json:
    variables = {"rollout_records": str(options.rollouts.resolve()), "rollout_reason": options.reason}
    if options.release:
        variables["rollout_release"] = options.release
    run = Run(options, "rollback", variables)
    done = run.answers.get("wave recalled")
    if done is None:
        raise run.broken()
    status = "failed" if done["failed"] else "back"
    code = RolloutError.exit_code if done["failed"] else 0
    return {"status": status, "reason": ", ".join(done["failed"]), "table": done["table"], "exit_code": code}


class Run:
    """One run of a playbook, to its end. `answers`: what each step of `fleet wave` said last, by its name."""

    def __init__(self, options: argparse.Namespace, playbook: str, variables: Json, check: bool = False) -> None:
        self.answers: dict[str, Json] = {}
        self.refusal: Json | None = None
        self.progress = Progress(sys.stderr)
        self.stopped = False
        self._baking: tuple[str, float, float] | None = None
        self._switched: dict[str, str] = {}
        # A folder of its own for each run: what ansible-runner finds in one, such as an earlier --check, it uses again.
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{playbook}-{os.getpid()}"
        folder = options.rollouts.resolve() / RUNS / name
        folder.mkdir(parents=True)
        arguments = (["--check"] if check else []) + (["--limit", options.limit] if options.limit else [])
        handlers = {each: signal.signal(each, self._stop) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.runner = ansible_runner.run(
                private_data_dir=str(folder),
                project_dir=str(HERE),
                ident="artifacts",
                artifact_dir=str(folder),
                inventory=str(options.inventory.resolve()),
                playbook=str(HERE / "playbooks" / f"{playbook}.yml"),
                extravars=variables,
                envvars={"ANSIBLE_CONFIG": str(HERE / "ansible.cfg")},
                cmdline=" ".join(arguments) or None,
                quiet=True,
                event_handler=self._event,
                cancel_callback=self._tick,
            )
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)
            self.progress.end()

    def _stop(self, number: int, frame: Any) -> None:
        self.stopped = True

    def _tick(self) -> bool:
        """Called again and again while Ansible runs; True ends it."""
        if self._baking:
            wave, since, total = self._baking
            self.progress.seconds(min(time.monotonic() - since, total), total, f"wave {wave} is watched")
        return self.stopped

    def _event(self, event: Json) -> bool:
        data = event.get("event_data", {})
        task, kind = data.get("task"), event["event"]
        if task == SWITCH and kind in ("runner_on_ok", "runner_on_unreachable"):
            self._device(data["host"], data["res"], kind)
        elif task == "Bake" and kind == "playbook_on_task_start":
            opened = self.answers["wave open"]
            self._baking = self._baking or (opened["wave"], time.monotonic(), opened.get("bake_s", 0.0))
        elif task == "Decide" and kind in ("runner_on_ok", "runner_on_failed"):
            self._decided(data["res"])
        elif kind == "runner_on_unreachable":
            self._say(f"{data['host']}: does not answer")
        return False  # what ansible-runner keeps of it is enough in its own stdout

    def _decided(self, result: Json) -> None:
        baking, self._baking = self._baking, None
        try:
            said = json.loads(result.get("stdout") or "")
        except ValueError:
            return
        if said.get("again"):  # between two looks
            self._baking = baking
        if "error" in said:
            self.refusal = said
            return
        self.answers[said["command"]] = said
        if said["command"] == "wave preflight":
            self._say(*said["table"])
        elif said["command"] == "wave open":
            self._switched = {}
            self._say(f"wave {said['wave']}: {'begins' if said['go'] else said['reason']}")
        elif said["command"] == "wave judge":
            self._say(f"wave {said['wave']}: {said['status']}: {said['reason']}")
        elif said["command"] == "wave settle" and said["back"]:
            self._say(f"going back: {', '.join(said['back'])}")

    def _device(self, device: str, result: Json, kind: str) -> None:
        from fleet.waves import answer

        if kind == "runner_on_unreachable":
            told = "does not answer"
        else:
            said = answer(result)
            told = f"runs {said['status']['release']}, on trial" if said["status"] else f"failed: {said['reason']}"
        self._switched[device] = told
        self._say(f"  {device}: {told} ({len(self._switched)} done)")

    def _say(self, *lines: str) -> None:
        self.progress.end()
        for line in lines:
            print(line, file=sys.stderr, flush=True)

    def broken(self) -> FleetError:
        """Why there is no answer: a step refused, somebody stopped it, or Ansible itself failed."""
        if self.stopped:
            error = FleetError("fleet", "interrupted", "", "run it again: it goes on where it stopped")
            error.exit_code = EXIT_INTERRUPTED
            return error
        if said := self.refusal:
            error = FleetError(said["where"], said["found"], said["expected"], said["remedy"])
            error.exit_code = int(said["exit_code"])
            return error
        log = Path(self.runner.config.artifact_dir) / "stdout"
        tail = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
        return RolloutError("ansible-playbook", " ".join(tail)[-400:] or "it ended early", "its end", f"see {log}")


def _text(result: Json) -> str:
    head = f"rollout {result['id']}: {result['status']}" if result.get("id") else result["status"]
    reason = f": {result['reason']}" if result["reason"] else ""
    return "\n".join([f"{head}{reason}", *(result["table"] or [])])
