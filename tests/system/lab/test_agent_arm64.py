"""The agent's package on aarch64: installed offline by hash, self-tested, switched and queried with both runtimes."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab import agents, arm64
from tests.support.agent.bundles import CLASSES, TOLERANCE
from tests.support.agent.releases import Releases
from tests.support.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
# An emulated Python takes seconds to start.
WAIT_S = 120.0
INSTALL = """\
set -eu
python3 -m venv --without-pip /mnt/agent
PYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl) PIP_CONFIG_FILE=/dev/null python -m pip install --quiet \
    --disable-pip-version-check --no-compile --no-index --find-links=/mnt/wheels --require-hashes \
    --requirement=/mnt/wheels/requirements.txt
"""
CONFIG = """\
[device]
id = "pi-1"
[paths]
state = "/mnt/state"
run = "/mnt/run"
root = "/mnt/releases/repository/metadata/1.root.json"
[source]
metadata_url = "file:///mnt/releases/repository/metadata"
targets_url = "file:///mnt/releases/repository/targets"
[install]
reserve_mb = 0.0
[trial]
seconds = 0.0
inferences = 1
probe_interval_s = 0.05
[serve]
listen = "127.0.0.1:{port}"
"""


class Device:
    """An emulated device with the agent installed below `folder`, with its releases and its service's port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.arm = folder, arm64.Arm64(folder)
        self.releases = Releases(folder / "releases")
        self.port = free_port()
        (folder / "config.toml").write_text(CONFIG.format(port=self.port))
        wheelhouse = agents.wheelhouses(arm64=True) / agents.NAMES[True]
        wheels = folder / "wheels"
        with tarfile.open(next(wheelhouse.glob("dependencies-*.tar"))) as archive:
            archive.extractall(wheels, filter="data")
        for file in (*wheelhouse.glob("*.whl"), wheelhouse / "requirements.txt"):
            shutil.copy(file, wheels)
        code, output = self.arm.run("sh", "-c", INSTALL)
        assert code == 0, output

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        exit_code, output = self.arm.run("edge-agent", "--config", "/mnt/config.toml", "--json", *arguments)
        assert exit_code == code, output
        # ONNX Runtime and LiteRT write notes about an emulated processor to stderr, which is the same file here.
        value: dict[str, Any] = json.loads(output[output.index("{") :])
        return value

    def predict(self, x: np.ndarray) -> tuple[str | None, np.ndarray]:
        """Return the release that answered and its probabilities, float32 [B, classes]."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        kind = "application/octet-stream"
        connection.request("POST", "/predict", x.tobytes(), {"Content-Type": kind, "Accept": kind})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        assert answer.status == 200, content
        return answer.headers["Edge-Agent-Release"], np.frombuffer(content, "<f4").reshape(-1, len(CLASSES))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    if lacking := arm64.missing():
        pytest.skip(lacking)
    return Device(tmp_path_factory.mktemp("arm64"))


@pytest.fixture
def notifications(device: Device) -> Iterator[socket.socket]:
    """The service's notifications to systemd. The path uses /proc, because a socket's path has at most 108 bytes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(WAIT_S)
        folder = os.open(device.folder, os.O_RDONLY)
        notify.bind(f"/proc/self/fd/{folder}/notify")
        os.close(folder)
        yield notify


def wait_for(notifications: socket.socket, word: str) -> None:
    while word not in notifications.recv(65536).decode():
        pass


def test_a_bundle_for_another_architecture_is_refused(device: Device) -> None:
    device.releases.publish("pump@0.1.0", requirements={"architectures": ["x86_64"]})
    refused = device.json("install", "pump@0.1.0", code=4)
    assert "architecture: found aarch64; expected one of x86_64" in refused["found"]


def test_releases_of_both_runtimes_are_self_tested_activated_and_served(
    device: Device, notifications: socket.socket
) -> None:
    targets = {"pump@1.0.0": "onnx-fp32", "pump@2.0.0": "tflite-int8"}
    for release, target in targets.items():
        device.releases.publish(release, targets=[target], requirements={"architectures": ["aarch64"]})
    log = device.folder / "serve.log"
    command = ("edge-agent", "--config", "/mnt/config.toml", "serve")
    with device.arm.running("env", "NOTIFY_SOCKET=/mnt/notify", *command, log=log) as process:
        wait_for(notifications, "READY=1")
        for release, target in targets.items():
            device.json("install", release)
            activated = device.json("activate", release)
            assert activated["selftest"]["target"] == target
            assert activated["selftest"]["max_difference"] <= TOLERANCE[target.rpartition("-")[2]]
            bundle = device.releases.bundles[release]
            answered, probabilities = device.predict(bundle.inputs)
            assert answered == release
            difference = np.abs(probabilities - bundle.outputs[target]).max()
            assert difference <= TOLERANCE[target.rpartition("-")[2]]
            wait_for(notifications, f"confirmed {release}")
        status = device.json("status")
        assert (status["current"], status["previous"]) == ("pump@2.0.0", "pump@1.0.0")
        assert status["service"]["loaded"]["release"] == "pump@2.0.0"
        process.terminate()
        assert process.wait(WAIT_S) == 0, log.read_text(errors="replace")
