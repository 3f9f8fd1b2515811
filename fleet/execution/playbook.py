"""Run a playbook on this machine through ansible-runner, with live progress and a folder for Ansible's output."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ansible_runner

from fleet.errors import FleetError, PlaybookError
from fleet.execution.live_progress import LiveProgress
from fleet.execution.worker_job import CHECKED, HERE, literal

RUNS, ARTIFACTS = ".runs", "artifacts"
COMMAND = "command"  # a file that ansible-runner writes with the whole environment, including passphrases
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])  # for ansible-playbook
ROOM = 1 << 20  # approximate size of a run's output in bytes


class PlaybookRun:
    """A run of a playbook on this machine, which has ended when the constructor returns.

    `live` reports the progress during the run, and then contains the results of the run's steps.
    """

    def __init__(
        self,
        playbook: str,
        inventory: Path,
        rollouts: Path,
        variables: Mapping[str, Any],
        *,
        limit: str | None = None,
        check: bool = False,
        live: LiveProgress | None = None,
    ) -> None:
        """Run a playbook, and wait until it has ended.

        Args:
            playbook: The name of the playbook in playbooks/, without .yml.
            inventory: The folder or file of the inventory.
            rollouts: The folder that contains all rollout records. Ansible's output is stored in a subfolder of it.
            variables: The extra variables for Ansible. Their values are not evaluated as templates.
            limit: A pattern of hosts or groups in Ansible's syntax, to which the run is limited; None selects all
                hosts.
            check: Whether to report the changes without making them (Ansible's check mode).
            live: The object that reports the progress; None creates a new LiveProgress.
        """
        folder = run_folder(rollouts, playbook)
        with live or LiveProgress() as self.live, _without_command_file(folder / ARTIFACTS):
            self.runner = ansible_runner.run(
                private_data_dir=str(folder),
                project_dir=str(HERE),
                ident=ARTIFACTS,
                artifact_dir=str(folder),
                inventory=str(inventory.resolve()),
                playbook=str(HERE / "playbooks" / f"{playbook}.yml"),
                extravars=literal(variables),  # an operator's text must not be evaluated
                envvars={"ANSIBLE_CONFIG": str(HERE / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "PATH": PATH, **CHECKED},
                limit=limit,  # one argument, whereas `cmdline` is split into several
                cmdline="--check" if check else None,
                quiet=True,
                event_handler=self.live.on_event,
                status_handler=_on_status,
                cancel_callback=self.live.poll,
            )

    def failure(self) -> FleetError:
        """Return the error that ended the run: a step refused, the operator stopped the run, or Ansible failed."""
        if error := self.live.failure():
            return error
        log = Path(self.runner.config.artifact_dir) / "stdout"
        tail = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
        return PlaybookError(
            "ansible-playbook",
            " ".join(tail)[-400:] or "the run ended early",
            "a run that completes all steps",
            f"see {log}",
        )


def _on_status(status: Mapping[str, Any], runner_config: Any) -> None:
    """Add setpriv to Ansible's command before Ansible starts, and remove the file COMMAND when Ansible has started.

    ansible-runner calls this function whenever the status of the run changes.
    """
    # With this prefix, Ansible receives SIGTERM if this process is killed. Without it, Ansible would continue to run.
    prefix = ["setpriv", "--pdeathsig", "TERM", "--"]
    if status["status"] == "starting" and shutil.which("setpriv"):
        # On some systems, setpriv has no option --pdeathsig.
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            runner_config.command = [*prefix, *runner_config.command]
    elif status["status"] == "running":
        (Path(runner_config.artifact_dir) / COMMAND).unlink(missing_ok=True)


@contextlib.contextmanager
def _without_command_file(artifacts: Path) -> Iterator[None]:
    """Remove the file COMMAND, which contains passphrases, when the context ends.

    `_on_status` does not remove the file if ansible-runner ends before it reports the status "running".
    """
    try:
        yield
    finally:
        (artifacts / COMMAND).unlink(missing_ok=True)


def run_folder(rollouts: Path, playbook: str) -> Path:
    """Create a new folder for the files of a run, and return its path.

    The folder must be new, because ansible-runner would reuse files of an earlier run. If there is no disk space for
    the folder, a rollback runs nevertheless, and its output is kept in a temporary folder. Other playbooks are
    not run in this case.

    Args:
        rollouts: The folder that contains all rollout records.
        playbook: The name of the playbook, without .yml.
    """
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{playbook}-{os.getpid()}"
    folder = rollouts.resolve() / RUNS / name
    try:
        folder.mkdir(parents=True)
        room = folder / "room"
        room.write_bytes(bytes(ROOM))
        room.unlink()
    except OSError as error:
        if playbook != "rollback":
            raise
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        print(f"{rollouts}: {error.strerror}; the output of Ansible is kept in {folder}", file=sys.stderr)
    return folder
