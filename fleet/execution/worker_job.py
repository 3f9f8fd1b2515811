"""One step on one worker: ansible-runner's transmit here, its worker there, its process here; ssh between them.

A worker works below `~/.edge-fleet/<run>`, which is there until the run ends. What its devices said comes home as
results.json among the artifacts (playbooks/steps.yml). Without that file the worker is lost: nothing is known of what
it did.
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

from fleet.inventory.workers import Worker

HERE = Path(__file__).parents[2]
ROLES = ("edge_agent", "rollout")
RESULTS = "results.json"
PUSH = "push.tar"
AWAY = ".edge-fleet"  # below the home of a worker's user
KEEPALIVE_S = 5
SILENCE_S = 60.0  # a worker that is there says something every KEEPALIVE_S
CHUNK, LIMIT = 1 << 20, 1 << 28  # bytes
CLEANUP_S = 30
KEPT_MINUTES = 7 * 24 * 60  # what a run that was killed left there
# NOTE: ansible-runner sets ANSIBLE_HOST_KEY_CHECKING to False where nobody says otherwise, and wins over ansible.cfg.
CHECKED = {"ANSIBLE_HOST_KEY_CHECKING": "True"}
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
Json = dict[str, Any]


class LostError(Exception):
    """The worker cannot be reached, ended early, or says nothing."""


def pack(folder: Path, devices: Mapping[str, Any], variables: Json, push: Path | None) -> None:
    """What a worker is sent: roles and one playbook, its devices, and what they are brought. No keys, no records.

    `devices`: name -> its variables, evaluated there; `variables`: of the step, taken as they are, since devices have
    said part of them.
    """
    shutil.rmtree(folder, ignore_errors=True)  # the step before; there is none before the first
    project = folder / "project"
    folder.mkdir(mode=0o700, parents=True)  # what an inventory says of devices may be for few eyes
    (folder / "inventory").mkdir()
    for role in ROLES:
        shutil.copytree(HERE / "playbooks/roles" / role, project / "playbooks/roles" / role)
    shutil.copy(HERE / "playbooks/steps.yml", project / "playbooks")
    shutil.copy(HERE / "ansible.cfg", project)
    tree = {
        "vars": {**literal(variables), "rollout_preflight": {"push": "{{ playbook_dir }}/../../" + PUSH}},
        "hosts": {"localhost": LOCAL},
        "children": {"devices": {"hosts": devices}},
    }
    (folder / "inventory/hosts.json").write_text(json.dumps({"all": tree}))
    if push:
        os.link(push, folder / PUSH)


def literal(value: Any) -> Any:
    """As Ansible writes text that is no template."""
    if isinstance(value, dict):
        return {name: literal(each) for name, each in value.items()}
    return {"__ansible_unsafe": value} if isinstance(value, str) else value


class WorkerJob:
    """`run` once; `stop` it from another thread. `folder`: of this worker and run; `name`: of this step in the run."""

    def __init__(self, worker: Worker, away: str, folder: Path, name: str, silence_s: float = SILENCE_S) -> None:
        self.worker, self.away, self.folder, self.name = worker, away, folder, name
        self.silence_s = silence_s
        self.folder.mkdir(parents=True, exist_ok=True)
        self.errors = folder / f"{name}.stderr"
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, parts: Sequence[str], devices: Sequence[str], event: Callable[[Json], bool]) -> Json:
        """Each part of what these devices said, by device. Raises LostError."""
        away = f"{AWAY}/{self.away}"
        command = self.worker.command("worker", "--private-data-dir", away, "--keepalive-seconds", str(KEEPALIVE_S))
        with self.errors.open("wb") as errors:
            # A session of its own: ^C is for this program, which ends its workers in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert self._process.stdin and self._process.stdout
        heard = _Heard(self._process.stdout.detach())  # type: ignore[attr-defined]  # a BufferedReader, of a pipe
        watch = threading.Thread(target=self._watch, args=(heard,), daemon=True)
        watch.start()
        try:
            with contextlib.suppress(OSError), self._process.stdin as stream:  # it ended: its stderr says why
                ansible_runner.run(
                    streamer="transmit",
                    _output=stream,
                    private_data_dir=str(self.folder / "send"),
                    playbook="playbooks/steps.yml",
                    ident=self.name,
                    envvars=CHECKED,
                )
            _Processor(heard, self.folder, self.name, event).run()
        except Exception as error:  # a worker may say anything, and Processor believes all of it
            raise LostError(f"what it said is not what a worker says ({error!r})") from error
        finally:
            self._ended.set()
            self.stop()
            self._process.wait()
            watch.join()
            heard.close()
        told = self._told(heard)
        try:
            return {part: {name: told[part][name] for name in devices} for part in parts}
        except (KeyError, TypeError) as error:
            raise LostError(f"it says nothing of {error}") from None

    def stop(self) -> None:
        if self._process:
            self._process.kill()

    def _watch(self, heard: _Heard) -> None:
        """Ends the process when nothing is heard any more."""
        while not self._ended.wait(1.0):
            if time.monotonic() - heard.last > self.silence_s:
                heard.silent = True
                self.stop()

    def _told(self, heard: _Heard) -> Json:
        artifacts = self.folder / "artifacts" / self.name
        try:
            return dict(json.loads((artifacts / RESULTS).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            if heard.silent:
                raise LostError(f"silent for {self.silence_s:g} s") from None
            stdout = artifacts / "stdout"
            for file in (stdout, self.errors):
                if file.exists() and (lines := file.read_text(errors="replace").strip().splitlines()):
                    raise LostError(" ".join(" ".join(lines[-3:]).split())[-300:]) from None
            raise LostError("it ended before it had told anything") from None


class _Processor(Processor):  # type: ignore[misc]  # ansible-runner has no types
    """Of the artifacts results.json and stdout alone are taken.

    ansible_runner's own unstream_dir follows names and links in the archive to wherever they lead: a worker could write
    anywhere on this machine, which has what workers must not have.
    """

    def __init__(self, heard: _Heard, folder: Path, name: str, event: Callable[[Json], bool]) -> None:
        super().__init__(
            _input=heard, private_data_dir=str(folder), ident=name, event_handler=event, quiet=True, settings={}
        )

    def artifacts_callback(self, artifacts_data: Json) -> None:
        with tempfile.TemporaryFile() as file:
            with Base64IO(self._input) as source:
                left = int(artifacts_data["zipfile"])
                while left > 0:
                    part = source.read(min(left, CHUNK))
                    left -= len(part) or left  # cut short: no archive
                    file.write(part)
            with zipfile.ZipFile(file) as archive:
                for name in {RESULTS, "stdout"} & set(archive.namelist()):
                    if archive.getinfo(name).file_size > LIMIT:
                        raise ValueError(f"{name} is larger than {LIMIT} bytes")
                    (Path(self.artifact_dir) / name).write_bytes(archive.read(name))


class _Heard(io.BufferedReader):
    """A worker's output, and when something came last."""

    silent = False

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw)
        self.last = time.monotonic()

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(-1 if size is None else size)
        self.last = time.monotonic()
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.last = time.monotonic()
        return content


def clean(worker: Worker, away: str, fleet: str) -> str:
    """Removes what this run, and killed ones long ago, have on a worker; answers with what is wrong, or nothing."""
    for pattern, minutes in ((f"{AWAY}/{away}", 0), (f"{AWAY}/{fleet}-*", KEPT_MINUTES)):
        command = worker.command("worker", "cleanup", "--file-pattern", pattern, "--grace-period", str(minutes))
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CLEANUP_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {CLEANUP_S} s"
        if done.returncode:
            return " ".join(done.stderr.split())[-200:] or f"exit code {done.returncode}"
    return ""
