"""`fleet rollout`, `fleet rollback`: the playbooks through ansible-runner, with live progress and exit codes that tell.

What is decided is decided by the playbook's own steps (steps.py): run by hand with ansible-playbook, it does the
same. Here their answers are read from Ansible's events, and said as they come (execution/live.py). Where the inventory
has workers, those work on the devices (execution/distributed.py).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible_runner

from fleet.cli.main import Commands, command
from fleet.errors import FleetError, NoReleaseError, PausedError, PlaybookError, RolloutError
from fleet.execution.distributed import EndedError, Remote, limited
from fleet.execution.live import Live
from fleet.execution.worker_job import CHECKED, HERE, literal
from fleet.inventory import model, workers
from fleet.records import report
from fleet.records import store as records_store
from fleet.releases import store
from fleet.releases.workspace import FOLDER
from fleet.rollout import resume

RUNS, ARTIFACTS = ".runs", "artifacts"
COMMAND = "command"  # ansible-runner writes the whole environment to it, with all passphrases and tokens
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])  # for ansible-playbook
ROOM = 1 << 20  # bytes that a run needs, roughly
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
    to.add_argument("--rollouts", type=Path, default=records_store.ROLLOUTS, metavar="DIR", help="records (rollouts)")


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
        _unfinished(options)
    variables: Json = {
        "rollout_repository": store.located(options.repository),
        "rollout_records": str(options.rollouts.resolve()),
        "rollout_approve": ",".join(options.approve),
        "rollout_again": options.again,
        "rollout_outside_window": options.outside_window,
    }
    run = _remote(options, "rollout") or Run(options, "rollout", variables, check=options.check)
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
    fleet = model.load(options.inventory)
    with records_store.locked(fleet.name, options.rollouts):
        begun = resume.of(fleet.name, options.inventory, options.rollouts)
        if begun is None:
            raise NoReleaseError(
                str(options.rollouts / fleet.name),
                "no rollout is unfinished",
                "one to go on with",
                "leave out --resume",
            )
        if why := resume.changed(begun, fleet.devices):
            raise PausedError(
                f"rollout {begun.id}",
                f"cannot go on: {why}",
                "what it began with",
                "revert that; or leave out --resume: it is given up, and a new one begins",
            )


def rollback(options: argparse.Namespace) -> Json:
    variables = {"rollout_records": str(options.rollouts.resolve()), "rollout_reason": options.reason}
    if options.release:
        variables["rollout_release"] = options.release
    run = _remote(options, "rollback") or Run(options, "rollback", variables)
    done = run.answers.get("wave recalled")
    if done is None:
        raise run.broken()
    status = "failed" if done["failed"] else "back"
    code = RolloutError.exit_code if done["failed"] else 0
    return {"status": status, "reason": ", ".join(done["failed"]), "table": done["table"], "exit_code": code}


def give_up(options: argparse.Namespace) -> Json:
    """Also where its process ran on another machine. Raises BusyError, NoReleaseError."""
    fleet = model.load(options.inventory)
    with records_store.locked(fleet.name, options.rollouts):
        begun = records_store.unfinished(fleet.name, options.rollouts, elsewhere=False)
        if begun is None:
            where = str(options.rollouts / fleet.name)
            raise NoReleaseError(where, "no rollout is unfinished", "one to give up", "there is nothing to do")
        resume.give_up(begun, options.reason)
        state = begun.load()
    told = {"id": begun.id, "status": state.status, "reason": state.reason, "record": str(begun.folder)}
    return {**told, "table": report.table(state)}


def _remote(options: argparse.Namespace, what: str) -> Remote | None:
    """A run to its end through the workers that the inventory declares; None where there are none."""
    forward = what == "rollout"
    listed = model.listing(options.inventory) if forward or not options.direct else {}
    if options.direct or not workers.are_declared(listed):
        if forward:  # a rollback goes as far as Ansible can
            model.load(options.inventory, listed)
        if options.limit:
            limited(options.inventory, options.limit)
        return None
    run = Remote(options, listed, run_folder(options.rollouts, what))
    with run.live, contextlib.suppress(EndedError), contextlib.closing(run):
        if forward:
            run.rollout(_plan(options, run), options.check)
        else:
            run.rollback(options.reason, options.release)
    return run


def _plan(options: argparse.Namespace, run: Remote) -> list[str]:
    """As playbooks/roles/rollout/tasks/plan.yml has it."""
    return [
        *("--inventory", str(options.inventory.resolve())),
        *("--repository", store.located(options.repository)),
        *("--rollouts", str(options.rollouts.resolve())),
        *(("--only", ",".join(run.devices)) if options.limit else ()),
        *("--approve", ",".join(options.approve)),
        *(("--again",) if options.again else ()),
        *(("--outside-window",) if options.outside_window else ()),
    ]


class Run:
    """One run of a playbook on this machine, to its end. `answers`: see Live."""

    def __init__(
        self,
        options: argparse.Namespace,
        playbook: str,
        variables: Json,
        check: bool = False,
        live: Live | None = None,
    ) -> None:
        folder = run_folder(options.rollouts, playbook)
        with live or Live() as self.live, _unwritten(folder / ARTIFACTS):
            self.runner = ansible_runner.run(
                private_data_dir=str(folder),
                project_dir=str(HERE),
                ident=ARTIFACTS,
                artifact_dir=str(folder),
                inventory=str(options.inventory.resolve()),
                playbook=str(HERE / "playbooks" / f"{playbook}.yml"),
                extravars=literal(variables),  # what a person wrote is no template
                envvars={"ANSIBLE_CONFIG": str(HERE / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "PATH": PATH, **CHECKED},
                limit=options.limit,  # one argument; what is in `cmdline` is split into several
                cmdline="--check" if check else None,
                quiet=True,
                event_handler=self.live.event,
                status_handler=_begins,
                cancel_callback=self.live.tick,
            )
        self.answers = self.live.answers

    def broken(self) -> FleetError:
        """Why there is no answer: a step refused, somebody stopped it, or Ansible itself failed."""
        if known := self.live.broken():
            return known
        log = Path(self.runner.config.artifact_dir) / "stdout"
        tail = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
        return PlaybookError("ansible-playbook", " ".join(tail)[-400:] or "it ended early", "its end", f"see {log}")


def _begins(status: Json, runner_config: Any) -> None:
    """What ansible-runner calls before it writes COMMAND and starts that ("starting"), and in between ("running")."""
    # Ansible ends as its workers do on SIGTERM when this process is killed, instead of going on unwatched.
    before = ["setpriv", "--pdeathsig", "TERM", "--"]
    if status["status"] == "starting" and shutil.which("setpriv"):
        # That of some systems does not know it.
        if subprocess.run([*before, "true"], capture_output=True, check=False).returncode == 0:
            runner_config.command = [*before, *runner_config.command]
    elif status["status"] == "running":
        (Path(runner_config.artifact_dir) / COMMAND).unlink(missing_ok=True)


@contextlib.contextmanager
def _unwritten(artifacts: Path) -> Iterator[None]:
    """Also where ansible-runner ends before it says "running"."""
    try:
        yield
    finally:
        (artifacts / COMMAND).unlink(missing_ok=True)


def run_folder(rollouts: Path, what: str) -> Path:
    """One of its own for each run: what ansible-runner finds in one, such as an earlier --check, it uses again.

    Devices are called back also where there is no room for it: what is printed is kept elsewhere then.
    """
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{what}-{os.getpid()}"
    folder = rollouts.resolve() / RUNS / name
    try:
        folder.mkdir(parents=True)
        room = folder / "room"
        room.write_bytes(bytes(ROOM))
        room.unlink()
    except OSError as error:
        if what != "rollback":
            raise
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        print(f"{rollouts}: {error.strerror}; what Ansible prints is kept in {folder}", file=sys.stderr)
    return folder


def _text(result: Json) -> str:
    head = f"rollout {result['id']}: {result['status']}" if result.get("id") else result["status"]
    reason = f": {result['reason']}" if result["reason"] else ""
    return "\n".join([f"{head}{reason}", *(result["table"] or [])])
