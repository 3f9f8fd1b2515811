"""Run one step of a rollout or a manual rollback on one worker over ssh, with ansible-runner.

This machine runs the ansible-runner commands `transmit` and `process`, and the worker runs the command `worker`. The
worker keeps its files in `~/.edge-fleet/<run>` until the run ends. It returns the results of its devices in the
artifact results.json (playbooks/steps.yml). A worker that does not return this file counts as lost. A lost worker may
have changed some of its devices, and this machine cannot know which ones.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ansible_runner
from ansible_runner.streaming import Processor
from ansible_runner.utils.base64io import Base64IO

from fleet.inventory.listing import Variables
from fleet.inventory.workers import Worker

HERE = Path(__file__).parents[2]
ROLES = ("edge_agent", "rollout")
RESULTS = "results.json"
PAYLOAD = "push.tar"
REMOTE_FOLDER = ".edge-fleet"  # in the home of the worker's user
KEEPALIVE_S = 5
SILENCE_S = 60.0  # a running worker sends something every KEEPALIVE_S seconds
CHUNK, LIMIT = 1 << 20, 1 << 28  # bytes
CLEANUP_S = 30
KEPT_MINUTES = 7 * 24 * 60  # minutes after which files of killed runs are removed
# NOTE: ansible-runner sets ANSIBLE_HOST_KEY_CHECKING to False by default, which overrides ansible.cfg.
CHECKED = {"ANSIBLE_HOST_KEY_CHECKING": "True"}
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
Event = Mapping[str, Any]  # an event of ansible-runner
# A step's results by part and device. Each is a result as Ansible registers it and `fleet wave` reads it.
PartResults = dict[str, dict[str, object]]


class LostError(Exception):
    """The worker cannot be reached, ended early, or stopped responding."""


def write_input(
    folder: Path, devices: Mapping[str, Variables], variables: Mapping[str, Any], payload: Path | None
) -> None:
    """Write the files that a worker needs for a step: roles, a playbook, the worker's devices and the payload.

    The files contain neither keys nor records of rollouts.

    Args:
        folder: The folder to which the files are written. If it exists, it is replaced.
        devices: The Ansible variables of each device, by device name. Templates in them are evaluated on the worker.
        variables: The Ansible variables of the step. Templates in them are not evaluated, because devices provide parts
            of the values.
        payload: The archive that the worker delivers to the devices; None if the worker already has it.
    """
    if folder.exists():
        shutil.rmtree(folder)  # the input of the previous step
    project = folder / "project"
    folder.mkdir(mode=0o700, parents=True)  # the variables of devices may be confidential
    (folder / "inventory").mkdir()
    for role in ROLES:
        shutil.copytree(HERE / "playbooks/roles" / role, project / "playbooks/roles" / role)
    shutil.copy(HERE / "playbooks/steps.yml", project / "playbooks")
    shutil.copy(HERE / "ansible.cfg", project)
    tree = {
        "vars": {**literal(variables), "rollout_preflight": {"push": "{{ playbook_dir }}/../../" + PAYLOAD}},
        "hosts": {"localhost": LOCAL},
        "children": {"devices": {"hosts": devices}},
    }
    (folder / "inventory/hosts.json").write_text(json.dumps({"all": tree}))
    if payload:
        os.link(payload, folder / PAYLOAD)


def literal(value: Any) -> Any:
    """Return a copy of a value in which all strings are marked as unsafe for Ansible.

    Ansible does not evaluate marked strings as templates.
    """
    if isinstance(value, dict):
        return {name: literal(each) for name, each in value.items()}
    return {"__ansible_unsafe": value} if isinstance(value, str) else value


class WorkerJob:
    """The execution of one step on one worker. Call `run` only once; another thread may call `stop`."""

    def __init__(self, worker: Worker, remote_name: str, folder: Path, name: str, silence_s: float = SILENCE_S) -> None:
        """Prepare a job.

        The caller must already have written the input of the job to `folder`/send with `write_input`.

        Args:
            worker: The worker that runs the step.
            remote_name: The name of the folder on the worker that contains the files of the run.
            folder: The folder on this machine that contains the files of this run for this worker.
            name: The name of the job, which is different for each step of the run.
            silence_s: The time after which a worker that sends no output counts as lost, in seconds.
        """
        self.worker, self.remote_name, self.folder, self.name = worker, remote_name, folder, name
        self.silence_s = silence_s
        self.folder.mkdir(parents=True, exist_ok=True)
        self.errors = folder / f"{name}.stderr"
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, parts: Sequence[str], devices: Sequence[str], on_event: Callable[[Event], bool]) -> PartResults:
        """Run the step on the worker, and return the step's results.

        Args:
            parts: The names of the parts of the step's results, such as `asked` (PARTS in distributed.py).
            devices: The names of the devices for which the worker must return results.
            on_event: A function that is called with each event of Ansible on the worker.

        Raises:
            LostError: The worker cannot be reached, ended early, or stopped responding.
        """
        remote = f"{REMOTE_FOLDER}/{self.remote_name}"
        command = self.worker.command("worker", "--private-data-dir", remote, "--keepalive-seconds", str(KEEPALIVE_S))
        with self.errors.open("wb") as errors:
            # With a separate session, Ctrl-C stops only this program, which then ends its workers in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert self._process.stdin and isinstance(self._process.stdout, io.BufferedReader)
        output = _WorkerOutput(self._process.stdout.detach())
        watch = threading.Thread(target=self._watch, args=(output,), daemon=True)
        watch.start()
        try:
            with (
                contextlib.suppress(OSError),
                self._process.stdin as stream,
            ):  # if the process has ended, its stderr has the reason
                ansible_runner.run(
                    streamer="transmit",
                    _output=stream,
                    private_data_dir=str(self.folder / "send"),
                    playbook="playbooks/steps.yml",
                    ident=self.name,
                    envvars=CHECKED,
                )
            _Processor(output, self.folder, self.name, on_event).run()
        except Exception as error:  # a worker may send anything, and Processor does not validate it
            raise LostError(f"its output is not the output of ansible-runner ({error!r})") from error
        finally:
            self._ended.set()
            self.stop()
            self._process.wait()
            watch.join()
            output.close()
        results = self._results(output)
        try:
            return {part: {name: results[part][name] for name in devices} for part in parts}
        except (KeyError, TypeError) as error:
            raise LostError(f"it returned no result for {error}") from None

    def stop(self) -> None:
        """End the connection to the worker. `run` then raises LostError."""
        if self._process:
            self._process.kill()

    def _watch(self, output: _WorkerOutput) -> None:
        """End the connection if the worker sends nothing for `silence_s` seconds."""
        while not self._ended.wait(1.0):
            if time.monotonic() - output.last_read > self.silence_s:
                output.is_silent = True
                self.stop()

    def _results(self, output: _WorkerOutput) -> Mapping[str, Any]:
        artifacts = self.folder / "artifacts" / self.name
        try:
            return dict(json.loads((artifacts / RESULTS).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            if output.is_silent:
                raise LostError(f"it sent nothing for {self.silence_s:g} s") from None
            stdout = artifacts / "stdout"
            for file in (stdout, self.errors):
                if file.exists() and (lines := file.read_text(errors="replace").strip().splitlines()):
                    raise LostError(" ".join(" ".join(lines[-3:]).split())[-300:]) from None
            raise LostError("it ended without a result") from None


class _Processor(Processor):  # type: ignore[misc]  # ansible-runner has no types
    """Processes the output of a worker, and stores only results.json and stdout from the worker's artifacts.

    ansible-runner's own function `unstream_dir` would accept any path and any link in the archive of artifacts. A
    worker could then write anywhere on this machine, which has keys and records that workers must not access.
    """

    def __init__(self, output: _WorkerOutput, folder: Path, name: str, on_event: Callable[[Event], bool]) -> None:
        super().__init__(
            _input=output, private_data_dir=str(folder), ident=name, event_handler=on_event, quiet=True, settings={}
        )

    def artifacts_callback(self, artifacts_data: Mapping[str, Any]) -> None:
        with tempfile.TemporaryFile() as file:
            with Base64IO(self._input) as source:
                remaining = int(artifacts_data["zipfile"])
                while remaining > 0:
                    part = source.read(min(remaining, CHUNK))
                    remaining -= len(part) or remaining  # end on an incomplete archive; ZipFile refuses it
                    file.write(part)
            with zipfile.ZipFile(file) as archive:
                for name in {RESULTS, "stdout"} & set(archive.namelist()):
                    if archive.getinfo(name).file_size > LIMIT:
                        raise ValueError(f"{name} is larger than {LIMIT} bytes")
                    (Path(self.artifact_dir) / name).write_bytes(archive.read(name))


class _WorkerOutput(io.BufferedReader):
    """The output stream of a worker. `last_read` is the time at which data last arrived."""

    is_silent = False

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw)
        self.last_read = time.monotonic()

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(-1 if size is None else size)
        self.last_read = time.monotonic()
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.last_read = time.monotonic()
        return content


def remove_files(worker: Worker, remote_name: str, fleet: str) -> str:
    """Remove the files of this run, and of earlier runs that were killed, from a worker.

    Args:
        worker: The worker.
        remote_name: The name of the run's folder on the worker.
        fleet: The name of the fleet. The folder name of each run of this fleet begins with it.

    Returns:
        The reason why files could not be removed; an empty string after success.
    """
    for pattern, minutes in ((f"{REMOTE_FOLDER}/{remote_name}", 0), (f"{REMOTE_FOLDER}/{fleet}-*", KEPT_MINUTES)):
        command = worker.command("worker", "cleanup", "--file-pattern", pattern, "--grace-period", str(minutes))
        try:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CLEANUP_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no response within {CLEANUP_S} s"
        if result.returncode:
            return " ".join(result.stderr.split())[-200:] or f"exit code {result.returncode}"
    return ""
