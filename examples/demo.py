"""`make demo`: five simulated devices, a good release in three waves, a damaged one that stays on the canary.

Nothing is played: the bundle is the one that `make repro` built, the commands are the ones that a person calls, the
devices are agents that answer requests all the while. The second bundle's weights are turned around before it is signed
and published: whoever holds the keys can publish a bad model, and only the devices find out.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from edge_agent.storage import archive, manifest
from onnx import numpy_helper

from stages.core.files import sha256, write_json
from stages.package.archive import pack
from tests.support.fleet.embedded import EmbeddedFleet
from tests.support.paths import REPOSITORY

BAKE_S = 4.0
WAVES = [{"name": "canary", "group": "canaries"}, {"name": "early", "count": 2}, {"name": "rest", "rest": True}]


def main() -> int:
    """Returns the exit code: 0 only if everything came out as it has to."""
    began = time.monotonic()
    bundles = [Path(name) for name in sys.argv[1:]] or sorted((REPOSITORY / "models/bundle").glob("*.tar.zst"))
    if len(bundles) != 1 or not bundles[0].is_file():
        print("demo: models/bundle: found no bundle; remedy: make repro", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _as_interrupt)
    fleet = EmbeddedFleet(repository=False)
    try:
        return _play(fleet, bundles[0], began)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        fleet.remove()


def _as_interrupt(number: int, frame: object) -> None:
    """What a terminal does at ^C: Ansible and its workers are told too, or they would go on setting devices up."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [(int(child), int(parent)) for child, parent in map(str.split, listed.splitlines())]
    told = {os.getpid()}
    while more := {child for child, parent in parents if parent in told} - told:
        told |= more
    for each in told - {os.getpid()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGINT)
    raise KeyboardInterrupt


def _play(fleet: EmbeddedFleet, bundle: Path, began: float) -> int:
    name = bundle.name.removesuffix(".tar.zst")
    good, bad = f"{name}@1.0.0", f"{name}@1.1.0"
    fleet.rules(waves=WAVES, bake_s=BAKE_S, judge={"min_inferences": 20, "latency_factor": 50.0})
    with tempfile.TemporaryDirectory() as work:
        inputs = _unpacked(bundle, Path(work) / "good")
        _say("publish", f"{good}, with development keys")
        _publish(fleet, bundle, "1.0.0")
        _say("bootstrap", f"{len(fleet.names)} devices: agent, root of trust")
        fleet.bootstrap()
        traffic = Traffic(fleet, inputs[:1])
        traffic.start()
        try:
            _say("rollout", f"{good}, in {len(WAVES)} waves")
            fleet.declare(good)
            first = _rollout(fleet)
            _say("publish", f"{bad}: a copy whose weights are turned around, signed like any other")
            _publish(fleet, _damaged(bundle, Path(work)), "1.1.0")
            _say("rollout", bad)
            fleet.declare(bad)
            second = _rollout(fleet)
        finally:
            traffic.stop()
    record = fleet.record()
    running = fleet.running()
    table = [("device", "wave", good, bad, "runs now", "answered", "refused")]
    for device in fleet.names:
        told = record["devices"][device]
        wave = told["wave"]
        counted = traffic.counts[device]
        table.append((device, wave, "ok", told["outcome"], str(running[device]), str(counted[200]), str(counted[0])))
    print()
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\nwhy {bad} went no further: {second['reason']}")
    print(f"{time.monotonic() - began:.0f} s; a rollout of your own: docs/how-to/roll-out.md")
    well = first["status"] == "passed" and second["status"] == "failed" and set(running.values()) == {good}
    return 0 if well else 1


def _say(what: str, more: str) -> None:
    print(f"\n== {what}: {more}", flush=True)


def _publish(fleet: EmbeddedFleet, bundle: Path, version: str) -> None:
    command = [sys.executable, "-m", "fleet", "publish", str(bundle), "--version", version, "--no-tag"]
    command += ["--repository", str(fleet.base / "releases"), "--keys", str(fleet.keys.folder)]
    subprocess.run(command, check=True, cwd=REPOSITORY, env=fleet.environment())


def _rollout(fleet: EmbeddedFleet) -> dict[str, Any]:
    """Its progress is on the terminal; what it returns is read."""
    command = [sys.executable, "-m", "fleet", "--json", "rollout", "-i", str(fleet.inventory)]
    command += ["--rollouts", str(fleet.rollouts), "--repository", str(fleet.base / "releases")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=fleet.environment())
    result: dict[str, Any] = json.loads(done.stdout)
    if "error" in result:
        raise SystemExit(f"demo: {result['where']}: {result['found']}")
    return result


def _unpacked(bundle: Path, folder: Path) -> np.ndarray:
    """The golden inputs, float32 [N, *shape]."""
    archive.unpack(bundle, folder)
    described = next(iter(manifest.read(folder)["targets"].values()))
    inputs: np.ndarray = np.load(folder / described["golden"]["inputs"], allow_pickle=False)
    return inputs.astype(np.float32)


def _damaged(bundle: Path, work: Path) -> Path:
    """A copy in which every matrix of every ONNX file stands upside down; its manifest fits it."""
    folder = work / "damaged"
    archive.unpack(bundle, folder)
    described = json.loads((folder / manifest.MANIFEST).read_text())
    for target in described["targets"].values():
        file = folder / target["file"]
        if file.suffix != ".onnx":
            continue
        model = onnx.load(file)
        for tensor in model.graph.initializer:
            if len(tensor.dims) >= 2:
                turned = np.ascontiguousarray(np.flip(numpy_helper.to_array(tensor), axis=0))
                tensor.CopyFrom(numpy_helper.from_array(turned, tensor.name))
        onnx.save(model, file)
        target["sha256"] = sha256(file)
        target["size_bytes"] = file.stat().st_size
        described["files"][target["file"]] = {"sha256": target["sha256"], "size_bytes": target["size_bytes"]}
    write_json(folder / manifest.MANIFEST, described)
    damaged = work / bundle.name
    pack(folder, damaged)
    shutil.rmtree(folder)
    return damaged


class Traffic(threading.Thread):
    """Asks every device again and again. `counts`: by device, answers with 200, and with anything else (0).

    A device that has no release yet answers 503: that is not counted.
    """

    def __init__(self, fleet: EmbeddedFleet, inputs: np.ndarray) -> None:
        super().__init__(daemon=True)
        self.fleet, self.body = fleet, json.dumps({"inputs": inputs.tolist()})
        self.counts = {name: {200: 0, 0: 0} for name in fleet.names}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.2):
            for name, counted in self.counts.items():
                code = self._ask(name)
                if code == 200:
                    counted[200] += 1
                elif counted[200]:
                    counted[0] += 1

    def _ask(self, name: str) -> int:
        connection = http.client.HTTPConnection("device", timeout=30)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self.fleet.base / name / "run/p.sock"))
            connection.request("POST", "/predict", self.body, {"Content-Type": "application/json"})
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def stop(self) -> None:
        self._over.set()
        self.join()


if __name__ == "__main__":
    sys.exit(main())
