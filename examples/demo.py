"""`make demo`: roll out a good release to five simulated devices, then a bad one that stops at the canary.

Only the devices are simulated: `make repro` built the bundle, the demo runs the same commands as a user, and on each
device a real agent answers requests during the rollouts. The weights of the second bundle are reversed before it is
signed and published. Signatures cannot prevent the owner of the keys from publishing a bad model. Only the devices can
detect such a model.
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
    """Run the demo. Return the exit code: 0 only if all results are as expected."""
    started = time.monotonic()
    bundles = [Path(name) for name in sys.argv[1:]] or sorted((REPOSITORY / "models/bundle").glob("*.tar.zst"))
    if len(bundles) != 1 or not bundles[0].is_file():
        print(
            "demo: models/bundle: the folder does not contain exactly one bundle; remedy: run `make repro`",
            file=sys.stderr,
        )
        return 1
    signal.signal(signal.SIGTERM, _as_interrupt)
    fleet = EmbeddedFleet(repository=False)
    try:
        return _play(fleet, bundles[0], started)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        fleet.remove()


def _as_interrupt(number: int, frame: object) -> None:
    """Interrupt all child processes, as a terminal does on Ctrl-C. Otherwise Ansible's workers would continue."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [(int(child), int(parent)) for child, parent in map(str.split, listed.splitlines())]
    processes = {os.getpid()}
    while more := {child for child, parent in parents if parent in processes} - processes:
        processes |= more
    for process in processes - {os.getpid()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGINT)
    raise KeyboardInterrupt


def _play(fleet: EmbeddedFleet, bundle: Path, started: float) -> int:
    name = bundle.name.removesuffix(".tar.zst")
    good, bad = f"{name}@1.0.0", f"{name}@1.1.0"
    fleet.set_policy(waves=WAVES, bake_s=BAKE_S, judge={"min_inferences": 20, "latency_factor": 50.0})
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
            _say("publish", f"{bad}: a copy with reversed weights, signed like any other")
            _publish(fleet, _with_reversed_weights(bundle, Path(work)), "1.1.0")
            _say("rollout", bad)
            fleet.declare(bad)
            second = _rollout(fleet)
        finally:
            traffic.stop()
    record = fleet.record()
    running = fleet.running()
    table = [("device", "wave", good, bad, "runs now", "answered", "refused")]
    for device in fleet.names:
        result = record["devices"][device]
        wave = result["wave"]
        counts = traffic.counts[device]
        table.append((device, wave, "ok", result["outcome"], str(running[device]), str(counts[200]), str(counts[0])))
    print()
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\nreason why {bad} was stopped: {second['reason']}")
    print(
        f"{time.monotonic() - started:.0f} s; next: docs/how-to/roll-out.md shows how to roll out to your own devices"
    )
    passed = first["status"] == "passed" and second["status"] == "failed" and set(running.values()) == {good}
    return 0 if passed else 1


def _say(step: str, detail: str) -> None:
    print(f"\n== {step}: {detail}", flush=True)


def _publish(fleet: EmbeddedFleet, bundle: Path, version: str) -> None:
    command = [sys.executable, "-m", "fleet", "publish", str(bundle), "--version", version, "--no-tag"]
    command += ["--repository", str(fleet.base / "releases"), "--keys", str(fleet.keys.folder)]
    subprocess.run(command, check=True, cwd=REPOSITORY, env=fleet.environment())


def _rollout(fleet: EmbeddedFleet) -> dict[str, Any]:
    """Run a rollout with its progress on the terminal. Return its result."""
    command = [sys.executable, "-m", "fleet", "--json", "rollout", "-i", str(fleet.inventory)]
    command += ["--rollouts", str(fleet.rollouts), "--repository", str(fleet.base / "releases")]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=fleet.environment())
    result: dict[str, Any] = json.loads(process.stdout)
    if "error" in result:
        raise SystemExit(f"demo: {result['where']}: {result['found']}")
    return result


def _unpacked(bundle: Path, folder: Path) -> np.ndarray:
    """Unpack a bundle. Return its golden inputs, float32 [N, *shape]."""
    archive.unpack(bundle, folder)
    described = next(iter(manifest.read(folder)["targets"].values()))
    inputs: np.ndarray = np.load(folder / described["golden"]["inputs"], allow_pickle=False)
    return inputs.astype(np.float32)


def _with_reversed_weights(bundle: Path, work: Path) -> Path:
    """Return a copy of the bundle, with a matching manifest, in which the rows of every ONNX matrix are reversed."""
    folder = work / "reversed"
    archive.unpack(bundle, folder)
    described = json.loads((folder / manifest.MANIFEST).read_text())
    for target in described["targets"].values():
        file = folder / target["file"]
        if file.suffix != ".onnx":
            continue
        model = onnx.load(file)
        for tensor in model.graph.initializer:
            if len(tensor.dims) >= 2:
                flipped = np.ascontiguousarray(np.flip(numpy_helper.to_array(tensor), axis=0))
                tensor.CopyFrom(numpy_helper.from_array(flipped, tensor.name))
        onnx.save(model, file)
        target["sha256"] = sha256(file)
        target["size_bytes"] = file.stat().st_size
        described["files"][target["file"]] = {"sha256": target["sha256"], "size_bytes": target["size_bytes"]}
    write_json(folder / manifest.MANIFEST, described)
    reversed_bundle = work / bundle.name
    pack(folder, reversed_bundle)
    shutil.rmtree(folder)
    return reversed_bundle


class Traffic(threading.Thread):
    """Send requests to every device continuously.

    `counts`: for each device, the number of responses with status 200 (key 200) and of all other results (key 0).
    Failures before a device's first success are not counted, because the device has no release until then.
    """

    def __init__(self, fleet: EmbeddedFleet, inputs: np.ndarray) -> None:
        super().__init__(daemon=True)
        self.fleet, self.body = fleet, json.dumps({"inputs": inputs.tolist()})
        self.counts = {name: {200: 0, 0: 0} for name in fleet.names}
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.2):
            for name, counts in self.counts.items():
                code = self._request(name)
                if code == 200:
                    counts[200] += 1
                elif counts[200]:
                    counts[0] += 1

    def _request(self, name: str) -> int:
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
        self._end.set()
        self.join()


if __name__ == "__main__":
    sys.exit(main())
