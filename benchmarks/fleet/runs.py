"""A fleet for `make bench-fleet`, and measured runs on it: whole rollouts, and the plain playbook for comparison."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.storage.archive import unpack

from benchmarks.accounting import Account, Peak
from benchmarks.fleet import files
from benchmarks.fleet.files import HOME, PLAIN
from benchmarks.fleet.namespaces import LightDevice, LightLab
from fleet.releases.catalog import target_path
from fleet.releases.keys import Keys
from fleet.releases.repository import Repository
from lab import LabError, agents
from tests.support.agent.bundles import bundle
from tests.support.paths import REPOSITORY

AGENT = ("--config", f"/{HOME}/edge/etc/edge-agent/config.toml")
ONE_WAVE = [{"name": "all", "rest": True}]
THREE_WAVES = [{"name": "canary", "percent": 2}, {"name": "early", "percent": 18}, {"name": "rest", "rest": True}]
TIMEOUT_S = 3600


@dataclass(frozen=True)
class Run:
    """The cost of a run in seconds: wall time, and processor time of the controller and of all devices.

    `memory_mb`: peak memory of the controller in MB (1e6 bytes).
    """

    wall_s: float
    controller_s: float
    devices_s: float
    memory_mb: float


class BenchFleet:
    """The devices and their releases: `with BenchFleet(...) as fleet: fleet.up(20); fleet.rollout(20)`."""

    def __init__(
        self, devices: int, runs: int, archive_kb: int, forks: int, stand_in: tuple[float, float] | None
    ) -> None:
        """Describe the fleet.

        Args:
            devices: Largest number of devices.
            runs: Number of releases that can be rolled out.
            archive_kb: Size of a release in kB, in addition to its tiny model.
            forks: Forks of Ansible.
            stand_in: Durations in seconds of a response and of a deployment by a program that replaces the agent;
                None for real agents.
        """
        self.size, self.runs, self.archive_kb, self.forks, self.stand_in = devices, runs, archive_kb, forks, stand_in
        self._release = self._version = 0
        self._up = 0
        self._verbose: list[str] = []

    def __enter__(self) -> BenchFleet:
        with ExitStack() as stack:
            self.lab = LightLab(self.size, layer=agents.layer(), plugged=False)
            stack.enter_context(self.lab)
            self.controller = stack.enter_context(Account("controller"))
            self.remote = stack.enter_context(Account("devices"))
            stack.callback(
                self.lab.close
            )  # before the accounts are closed, because they contain the devices' processes
            for device in self.lab.devices:
                device.accounts = tuple(self.remote.files)
            self.base = self.lab.folder / "controller"
            self.base.mkdir()
            self._publish()
            self._image()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    # --- preparation

    def _publish(self) -> None:
        """Publish a release for every run, and write the same models as archives for the plain playbook."""
        self.keys = Keys(self.base / "keys")
        self.repository = Repository.create(self.base / "releases", self.keys, development=True)
        self.digests = {}
        for number in range(self.runs + 1):
            folder = self.base / "bundles" / str(number)
            built = bundle(folder, variant=number + 1, padding=self.archive_kb * 1000)
            unpack(built.archive, folder / "unpacked")
            (target,) = built.manifest["targets"].values()
            self.digests[f"pump@1.{number}.0"] = target["sha256"]
            self.repository.add(target_path("pump", f"1.{number}.0"), built.archive, {"version": f"1.{number}.0"})
            with tarfile.open(self.base / f"1.{number}.0.tar", "w") as tar:
                tar.add(folder / "unpacked", f"1.{number}.0")
            shutil.rmtree(folder)
        self.repository.write("targets", "snapshot", "timestamp")

    def _image(self) -> None:
        """Set up the first device with the real playbooks, and copy its files to every device."""
        first = self.lab.devices[0]
        first.plug()
        self._inventory(1, ONE_WAVE, "pump@1.0.0")
        for name in ("bootstrap", "rollout"):
            self._play(1, [f"playbooks/{name}.yml"], self._variables())
        image = self.base / "image"
        status = (
            first.exec(f"{files.programs()}/edge-agent", *AGENT, "--json", "status", "--report")
            if self.stand_in
            else None
        )
        self.stop(first)
        shutil.copytree(
            first.files / HOME / "edge", image / "edge", symlinks=True, ignore=shutil.ignore_patterns("run")
        )
        first.unplug()
        shutil.rmtree(first.files / HOME)
        if status:
            files.stand_in(image / "edge", status.stdout, self.digests, self.stand_in or (0.0, 0.0))
        else:
            files.plain(image / "plain", self.base / "1.0.0.tar")
        for device in self.lab.devices:
            device.copy_folder(image, HOME)
            config = device.files / HOME / "edge/etc/edge-agent/config.toml"
            config.write_text(config.read_text().replace(first.name, device.name))
            if not status:
                device.start = ("sh", "-c", f"/{HOME}/edge/agent-process start && /{HOME}/plain/service start")

    def stop(self, device: LightDevice) -> None:
        device.exec(f"/{HOME}/edge/agent-process", "stop")

    def up(self, number: int) -> None:
        """Boot the first `number` devices, each with a serving agent."""
        self.lab.plug(self.lab.devices[self._up : number])
        self._up = max(self._up, number)

    # --- measured runs

    def rollout(self, number: int, waves: Sequence[dict[str, Any]] = ONE_WAVE) -> Run:
        """Roll out the next release to the first `number` devices. Raises LabError unless all serve it."""
        self._release += 1
        release = f"pump@1.{self._release}.0"
        self._inventory(number, waves, release)
        run = self._play(number, ["playbooks/rollout.yml"], self._variables())
        (latest,) = sorted((self.base / "rollouts").glob("*/*/state.json"))[-1:]
        state = json.loads(latest.read_text())
        outcomes = {(name, device["release"], device["outcome"]) for name, device in state["devices"].items()}
        expected = {(device.name, release, "ok") for device in self.lab.devices[:number]}
        if state["status"] != "passed" or outcomes != expected:
            raise LabError(
                str(latest),
                f"{state['status']}: {outcomes ^ expected}",
                "a rollout that passed with every device `ok`",
                "read the rollout's record",
            )
        self._require_served(number, self._release_of, release)
        return run

    def plain(self, number: int) -> Run:
        """Deploy the next version to the first `number` devices with the plain playbook."""
        self._version += 1
        version = f"1.{self._version}.0"
        self._inventory(number, ONE_WAVE, "pump@1.0.0")
        extra = {"version": version, "archive": str(self.base / f"{version}.tar"), "place": f"/{HOME}/plain"}
        run = self._play(number, [str(PLAIN / "deploy.yml")], extra)
        self._require_served(number, self._version_of, version)
        return run

    def exchanges(self, run: Callable[[int], Run]) -> int:
        """Return how many commands and file transfers over ssh a run needs for one device."""
        self._verbose = ["-vvv"]
        run(1)
        self._verbose = []
        return len(
            re.findall(r"^<10[.][^>]+> (?:SSH: EXEC|PUT)", (self.base / "ansible.log").read_text(), re.MULTILINE)
        )

    def _require_served(self, number: int, query: Callable[[LightDevice], str], expected: str) -> None:
        devices = self.lab.devices[:number]
        with ThreadPoolExecutor(8) as pool:
            served = list(pool.map(query, devices))
        others = {device.name: name for device, name in zip(devices, served, strict=True) if name != expected}
        if others:
            raise LabError(
                "devices", str(others)[:500], f"devices that all serve {expected}", "read the logs of these devices"
            )

    def _release_of(self, device: LightDevice) -> str:
        """Query the agent's release through its socket, which this machine can open below the device's root."""
        if self.stand_in is not None:
            return (device.files / HOME / "edge/release").read_text().strip()
        connection = http.client.HTTPConnection("device", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(f"/proc/{device.leader}/root/{HOME}/edge/run/p.sock")
        connection.request("GET", "/info")
        answer = json.load(io.BytesIO(connection.getresponse().read()))
        connection.close()
        return str(answer["release"])

    def _version_of(self, device: LightDevice) -> str:
        with urllib.request.urlopen(f"http://{device.address}:8700/healthz", timeout=30) as answer:
            return str(json.load(answer)["version"])

    # --- Ansible

    def _play(self, number: int, arguments: list[str], extra: dict[str, Any]) -> Run:
        """Run ansible-playbook and measure it. The ssh connections of earlier runs are closed first."""
        self._disconnect()
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [program, "-i", str(self.base / "inventory"), *arguments, *self._verbose, "-e", json.dumps(extra)]
        log = self.base / "ansible.log"
        before = self.controller.processor_s(), self.remote.processor_s()
        started = time.monotonic()
        with log.open("wb") as stream, Peak(self.controller) as peak:
            code = subprocess.run(
                self.controller.joined(command),
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
                env={
                    **os.environ,
                    "FLEET_KEYS": str(self.keys.folder),
                    "ANSIBLE_NOCOLOR": "1",
                    "ANSIBLE_FORKS": str(self.forks),
                    "ANSIBLE_LOCAL_TEMP": str(self.base / "tmp"),
                },
                check=False,
            ).returncode
        wall_s = time.monotonic() - started
        after = self.controller.processor_s(), self.remote.processor_s()
        if code:
            raise LabError(
                arguments[0], f"exit code {code}: {log.read_text()[-3000:]}", "exit code 0", "read the output above"
            )
        return Run(wall_s, after[0] - before[0], after[1] - before[1], peak.mb)

    def _disconnect(self) -> None:
        for control in (self.lab.folder / "cp").glob("*"):
            subprocess.run(["ssh", f"-oControlPath={control}", "-Oexit", "lab"], capture_output=True, check=False)

    def _variables(self) -> dict[str, str]:
        return {
            "rollout_repository": str(self.base / "releases"),
            "rollout_records": str(self.base / "rollouts"),
        }

    def _inventory(self, number: int, waves: Sequence[dict[str, Any]], release: str) -> None:
        stand_in = self.stand_in is not None and self._up > 0  # the first device is set up with a real agent
        files.inventory(self.base, self.lab, number, list(waves), release, stand_in)


def median(runs: Sequence[Run]) -> Run:
    """Return a run with the median of each field."""
    return Run(*(statistics.median(getattr(run, name) for run in runs) for name in Run.__dataclass_fields__))
