"""Devices to be broken: quick copies of a prepared one, and what must hold of each afterwards."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edge_agent.storage import slots

from tests.support.agent.bundles import CLASSES
from tests.support.agent.cli import WAIT_S, Device, environment_with
from tests.support.agent.releases import Releases
from tests.system.crash.forks import Forks, Process

NAME = "pump"
OLD, ONE, TWO, THREE = (f"{NAME}@{version}" for version in ("0.9.0", "1.0.0", "2.0.0", "3.0.0"))


class QuickDevice(Device):
    """A device whose commands are forked from a process that has everything imported."""

    def __init__(self, folder: Path, releases: Releases, forks: Forks, **blocks: Mapping[str, Any]) -> None:
        # A release on trial stays so until the command line confirms it: the tests know when that is.
        trial = {"confirm": "manual", "probe_interval_s": 0.05, **blocks.pop("trial", {})}
        selftest = {"repeats": 1, **blocks.pop("selftest", {})}
        super().__init__(folder, releases.repository, trial=trial, selftest=selftest, **blocks)
        self.releases, self.forks = releases, forks

    def start(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> Process:
        return self.forks.start(["--config", str(self.file), *arguments], environment, log)

    def call(self, *arguments: str, fault: str = "") -> subprocess.CompletedProcess[str]:
        log = self.run / "call.log"
        log.unlink(missing_ok=True)
        code = self.start(list(arguments), environment_with(fault), log).wait(WAIT_S)
        return subprocess.CompletedProcess(arguments, code, log.read_text(errors="replace"), "")

    def must(self, *arguments: str) -> None:
        done = self.call(*arguments)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.returncode}\n{done.stdout}"

    def keep(self, copy: Path) -> None:
        """Copy the state, for others to adopt."""
        shutil.copytree(self.config.layout.state, copy, symlinks=True)

    def adopt(self, kept: Path) -> None:
        """Take over the state of another device."""
        shutil.copytree(kept, self.config.layout.state, symlinks=True)

    def predict(self) -> str:
        """Ask the running service about the golden samples; the release that answered, and rightly so."""
        answer = ask(self.socket, {"inputs": next(iter(self.releases.bundles.values())).inputs.tolist()})
        release: str = answer["release"]
        expected = self.releases.bundles[release].outputs["onnx-fp32"]
        found = np.array([[each["probabilities"][name] for name in CLASSES] for each in answer["predictions"]])
        assert np.abs(found - expected).max() < 1e-4, f"{release} answers something else"
        return release


def ask(path: Path, body: Mapping[str, Any]) -> dict[str, Any]:
    """POST /predict over a unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(WAIT_S)
    connection.sock.connect(str(path))
    try:
        connection.request("POST", "/predict", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    assert response.status == 200, content
    value: dict[str, Any] = json.loads(content)
    return value


def survives(device: QuickDevice, allowed: frozenset[str], damaged: frozenset[str] = frozenset()) -> str:
    """What must hold of a device after whatever happened to it; which release it booted to, one of `allowed`.

    The state can be read and every slot is whole, but those `damaged` before. The service boots to a complete verified
    model, and that model answers golden samples rightly. The next release can be installed, activated and confirmed,
    and answers rightly.
    """
    layout = device.config.layout
    device.must("--json", "status")
    for release in set(slots.installed(layout)) - damaged:
        slots.verify(layout, release)
    with device.serving() as served:
        served.ready()
        booted = device.predict()
        assert booted == device.state.current, f"{booted} answers, but {device.state.current} is current"
        assert booted in allowed, f"booted to {booted}"
        assert str(layout.current_link.readlink()) == f"releases/{booted}"
        device.must("install", THREE)
        # Not the self-test: it imports its runtime anew each time, and other tests see to it.
        device.must("activate", "--no-selftest", THREE)
        assert device.predict() == THREE
        device.must("confirm", "--force")
    assert device.state.current == THREE and device.state.trial is None
    assert device.state.previous == booted or device.state.previous in slots.installed(layout)
    left = [path.name for path in layout.releases.iterdir() if path.name.startswith(".")]
    assert not left, f"left behind: {left}"
    return booted
