"""A device for tests: its configuration and its state in a folder, the real command line and the real service.

Nothing here waits by sleeping: the sd_notify datagrams of the service report its progress.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_agent.cli.main import SCHEMA_FILE
from edge_agent.core import config as configuration
from edge_agent.core import fault_points
from edge_agent.core import state as states
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config
from jsonschema import Draft202012Validator

from tests.support.agent.tuf_repository import TufRepository

WAIT_S = 60.0
OUTPUT = Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))


class Device:
    """A device whose config.toml and state/ are in `folder`.

    Its sockets are in a temporary folder with a short path, because the name of a socket has at most 108 bytes.
    """

    def __init__(self, folder: Path, repository: TufRepository, **blocks: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.run = Path(tempfile.mkdtemp(prefix="agent-"))
        self.socket = self.run / "predict.sock"
        root = folder / "root.json"
        shutil.copy(repository.root_file, root)
        settings: dict[str, dict[str, Any]] = {
            "device": {"id": "device-1"},
            "paths": {"state": str(folder / "state"), "run": str(self.run), "root": str(root)},
            "source": {
                "metadata_url": f"{repository.folder.as_uri()}/metadata",
                "targets_url": f"{repository.folder.as_uri()}/targets",
                "backoff_s": 0.01,
            },
            "install": {"reserve_mb": 0.0},
            "selftest": {"repeats": 5},
            "trial": {"seconds": 0.0, "inferences": 3, "probe_interval_s": 0.05},
            "serve": {"listen": "", "socket": str(self.socket)},
        }
        for name, block in blocks.items():
            settings.setdefault(name, {}).update(block)
        self.file = folder / "config.toml"
        self.file.write_text(_toml(settings), encoding="utf-8")
        self.config: Config = configuration.load(self.file)

    @property
    def state(self) -> State:
        """Return the content of state.json."""
        return states.load(self.config.layout)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "edge_agent", "--config", str(self.file), *arguments]

    def start(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> Any:
        """Start a command that keeps running, as a subprocess.Popen."""
        with log.open("wb") as stream:
            return subprocess.Popen(self.command(*arguments), stdout=stream, stderr=stream, env=dict(environment))

    def call(self, *arguments: str, fault: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command in a separate process."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=WAIT_S, env=environment_with(fault)
        )

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Return the output of a command with --json, which must be valid by the schema."""
        done = self.call("--json", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        value: dict[str, Any] = json.loads(done.stdout)
        OUTPUT.validate(value)
        return value

    @contextlib.contextmanager
    def serving(self, fault: str = "", **environment: str) -> Iterator[ServiceProcess]:
        """Run the service until the block ends; then send SIGTERM, and require exit code 0."""
        served = ServiceProcess(self, fault, **environment)
        try:
            yield served
            if served.process.poll() is None:
                assert served.stop() == 0, served.log
        finally:
            if served.process.poll() is None:
                served.process.kill()
                served.process.wait()

    def remove(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)


class ServiceProcess:
    """A process of the service, observed through its notify socket. `log` is its output on stderr."""

    def __init__(self, device: Device, fault: str = "", **environment: str) -> None:
        self.device = device
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = Path(tempfile.mkdtemp(dir=device.run)) / "notify"
        self._notifications.bind(str(path))
        self._log = path.with_name("log")
        settings = {**environment_with(fault), "NOTIFY_SOCKET": str(path), **environment}
        self.process = device.start(["serve"], settings, self._log)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, *words: str, within_s: float = WAIT_S) -> str:
        """Return the next message of the service that contains one of `words`.

        Raises TimeoutError after `within_s` seconds, or at once if the service has ended.
        """
        self._notifications.settimeout(0.1)
        deadline = time.monotonic() + within_s
        while True:
            ended = self.process.poll() is not None
            try:
                message = self._notifications.recv(65536).decode()
            except TimeoutError:
                if ended or time.monotonic() > deadline:
                    raise TimeoutError(f"no message of the service with {words}; its log:\n{self.log}") from None
                continue
            if any(word in message for word in words):
                return message

    def ready(self) -> ServiceProcess:
        self.wait_for("READY=1")
        return self

    def ended(self) -> int:
        """Wait for the end of the service and return its exit code."""
        code: int = self.process.wait(WAIT_S)
        self._notifications.close()
        return code

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()


def environment_with(fault: str) -> dict[str, str]:
    """Return the environment of this process, with one fault point (edge_agent.core.fault_points) or none."""
    kept = {name: value for name, value in os.environ.items() if name not in (fault_points.VARIABLE, "NOTIFY_SOCKET")}
    return {**kept, **({fault_points.VARIABLE: fault} if fault else {})}


def _toml(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the settings as TOML: strings, numbers, lists and booleans are written as in JSON."""
    lines = []
    for name, block in settings.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in block.items())]
    return "\n".join(lines) + "\n"
