"""Devices for crash tests: quick copies of a prepared device, and the check of a device after a fault."""

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
    """A device whose commands are forked from a process that has already imported all modules."""

    def __init__(self, folder: Path, releases: Releases, forks: Forks, **blocks: Mapping[str, Any]) -> None:
        # A release stays on trial until the command line confirms it, so that tests know when that is.
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

    def save_state(self, copy: Path) -> None:
        """Copy the state, so that other devices can adopt it."""
        shutil.copytree(self.config.layout.state, copy, symlinks=True)

    def adopt_state(self, saved: Path) -> None:
        """Start from the saved state of another device."""
        shutil.copytree(saved, self.config.layout.state, symlinks=True)

    def predict(self) -> str:
        """Send the golden samples to the service, check its predictions and return the release that answered."""
        response = post_predict(self.socket, {"inputs": next(iter(self.releases.bundles.values())).inputs.tolist()})
        release: str = response["release"]
        expected = self.releases.bundles[release].outputs["onnx-fp32"]
        probabilities = np.array(
            [[each["probabilities"][name] for name in CLASSES] for each in response["predictions"]]
        )
        assert np.abs(probabilities - expected).max() < 1e-4, f"{release} answers with other probabilities"
        return release


def post_predict(path: Path, body: Mapping[str, Any]) -> dict[str, Any]:
    """Send POST /predict over a unix socket and return the response."""
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


def check_survival(device: QuickDevice, allowed: frozenset[str], damaged: frozenset[str] = frozenset()) -> str:
    """Check that a device survived a fault and return the release that it booted to, which must be in `allowed`.

    The state can be read, and every slot is complete, except for those of `damaged`. The service boots to a complete,
    verified model, which predicts the golden samples correctly. The next release can be installed, activated and
    confirmed, and predicts correctly.
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
        # Without the self-test, which imports its runtime each time and is covered by other tests.
        device.must("activate", "--no-selftest", THREE)
        assert device.predict() == THREE
        device.must("confirm", "--force")
    assert device.state.current == THREE and device.state.trial is None
    assert device.state.previous == booted or device.state.previous in slots.installed(layout)
    leftovers = [path.name for path in layout.releases.iterdir() if path.name.startswith(".")]
    assert not leftovers, f"left behind: {leftovers}"
    return booted
