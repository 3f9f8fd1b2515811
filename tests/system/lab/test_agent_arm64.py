"""The package on aarch64: installed offline by hash, self-tested, switched and asked there, with both runtimes."""

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
# Emulated, a Python starts in seconds.
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
    """The root with the agent installed below `folder`, its releases and its service's port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.arm = folder, arm64.Arm64(folder)
        self.releases = Releases(folder / "releases")
        self.port = free_port()
        (folder / "config.toml").write_text(CONFIG.format(port=self.port))
        house = agents.wheelhouses(arm64=True) / agents.NAMES[True]
        wheels = folder / "wheels"
        with tarfile.open(next(house.glob("dependencies-*.tar"))) as archive:
            archive.extractall(wheels, filter="data")
        for file in (*house.glob("*.whl"), house / "requirements.txt"):
            shutil.copy(file, wheels)
        code, said = self.arm.run("sh", "-c", INSTALL)
        assert code == 0, said

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        found, said = self.arm.run("edge-agent", "--config", "/mnt/config.toml", "--json", *arguments)
        assert found == code, said
        # ONNX Runtime's and LiteRT's remarks on an emulated processor go to stderr, which is the same file here.
        value: dict[str, Any] = json.loads(said[said.index("{") :])
        return value

    def predict(self, x: np.ndarray) -> tuple[str | None, np.ndarray]:
        """Which release answered, and what: float32 [B, classes]."""
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
def heard(device: Device) -> Iterator[socket.socket]:
    """What the service tells systemd. The path goes through /proc: a socket's name has 108 bytes at most."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(WAIT_S)
        folder = os.open(device.folder, os.O_RDONLY)
        notify.bind(f"/proc/self/fd/{folder}/notify")
        os.close(folder)
        yield notify


def wait_for(heard: socket.socket, word: str) -> None:
    while word not in heard.recv(65536).decode():
        pass


def test_a_bundle_for_another_architecture_is_refused(device: Device) -> None:
    device.releases.publish("pump@0.1.0", requirements={"architectures": ["x86_64"]})
    refused = device.json("install", "pump@0.1.0", code=4)
    assert "architecture: found aarch64; expected one of x86_64" in refused["found"]


def test_releases_of_both_runtimes_are_self_tested_activated_and_asked(device: Device, heard: socket.socket) -> None:
    targets = {"pump@1.0.0": "onnx-fp32", "pump@2.0.0": "tflite-int8"}
    for release, target in targets.items():
        device.releases.publish(release, targets=[target], requirements={"architectures": ["aarch64"]})
    log = device.folder / "serve.log"
    command = ("edge-agent", "--config", "/mnt/config.toml", "serve")
    with device.arm.running("env", "NOTIFY_SOCKET=/mnt/notify", *command, log=log) as process:
        wait_for(heard, "READY=1")
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
            wait_for(heard, f"confirmed {release}")
        status = device.json("status")
        assert (status["current"], status["previous"]) == ("pump@2.0.0", "pump@1.0.0")
        assert status["service"]["loaded"]["release"] == "pump@2.0.0"
        process.terminate()
        assert process.wait(WAIT_S) == 0, log.read_text(errors="replace")
