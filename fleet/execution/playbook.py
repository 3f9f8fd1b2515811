"""A playbook on this machine through ansible-runner: what reaches Ansible, what is kept of the run, how it ends."""

from __future__ import annotations

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

from fleet.errors import FleetError, PlaybookError
from fleet.execution.live_progress import LiveProgress
from fleet.execution.worker_job import CHECKED, HERE, literal

RUNS, ARTIFACTS = ".runs", "artifacts"
COMMAND = "command"  # ansible-runner writes the whole environment to it, with all passphrases and tokens
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])  # for ansible-playbook
ROOM = 1 << 20  # bytes that a run needs, roughly
Json = dict[str, Any]


class PlaybookRun:
    """One run of a playbook on this machine, to its end. `results`: see LiveProgress.

    Args:
        playbook: its name below playbooks/, without .yml.
        inventory: its folder or file.
        rollouts: the folder of all records; what Ansible prints is kept there.
        variables: Ansible's extra variables, taken as they are written: no templates.
        limit: only these devices or groups, as Ansible names them.
        check: say what would be, change nothing.
        live: what reports the progress; None: the usual one.
    """

    def __init__(
        self,
        playbook: str,
        inventory: Path,
        rollouts: Path,
        variables: Json,
        *,
        limit: str | None = None,
        check: bool = False,
        live: LiveProgress | None = None,
    ) -> None:
        folder = run_folder(rollouts, playbook)
        with live or LiveProgress() as self.live, _unwritten(folder / ARTIFACTS):
            self.runner = ansible_runner.run(
                private_data_dir=str(folder),
                project_dir=str(HERE),
                ident=ARTIFACTS,
                artifact_dir=str(folder),
                inventory=str(inventory.resolve()),
                playbook=str(HERE / "playbooks" / f"{playbook}.yml"),
                extravars=literal(variables),  # what a person wrote is no template
                envvars={"ANSIBLE_CONFIG": str(HERE / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "PATH": PATH, **CHECKED},
                limit=limit,  # one argument; what is in `cmdline` is split into several
                cmdline="--check" if check else None,
                quiet=True,
                event_handler=self.live.on_event,
                status_handler=_begins,
                cancel_callback=self.live.poll,
            )
        self.results = self.live.results

    def failure(self) -> FleetError:
        """Why there is no answer: a step refused, somebody stopped it, or Ansible itself failed."""
        if known := self.live.failure():
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
