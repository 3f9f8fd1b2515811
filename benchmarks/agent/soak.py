"""Run mixed traffic against one service for an hour, and compare every response with plain ONNX Runtime.

The traffic has bodies of 1 kB to 8 MB, clients that send slowly, clients that disconnect, a slow model, and a switch to
another release every minute (`make bench-soak`). At the end, memory, file descriptors and threads are compared with
those at the beginning. The exit code is 1 if a response was lost or wrong, or if one of the three has grown.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import random
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from stages.package.archive import pack
from tests.support.agent.cli import Device
from tests.support.agent.model_files import onnx_flatten_linear
from tests.support.agent.third_party import series, write_bundle
from tests.support.agent.tuf_repository import TufRepository
from tests.support.servers import free_port

SHAPE, CLASSES = (2, 1024), 4
RELEASES = ("soak@1.0.0", "soak@1.1.0", "soak@1.2.0", "soak@1.3.0")
SLOW = RELEASES[3]  # its model multiplies large matrices in every run
SIDE = 1200
TOLERANCE = 1e-3
RAW, JSON = "application/octet-stream", "application/json"
BODY_LIMIT = 8_000_000
REFUSALS = {408, 413, 429, 503}  # documented responses of a busy service, with a reason
IO = {
    "runtime": "onnxruntime",
    "input": {"name": "x", "shape": list(SHAPE), "dtype": "float32"},
    "output": {"name": "y", "shape": [CLASSES], "dtype": "float32", "activation": "logits"},
    "recurrent": None,
}


@dataclass
class Counts:
    """The responses by status, and the responses that were lost or wrong, by reason."""

    responses: collections.Counter[str] = field(default_factory=collections.Counter)
    lost: collections.Counter[str] = field(default_factory=collections.Counter)
    incorrect: collections.Counter[str] = field(default_factory=collections.Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, counter: collections.Counter[str], key: str) -> None:
        with self.lock:
            counter[key] += 1


@dataclass(frozen=True)
class Resources:
    """Resident memory of the service in 1e6 bytes, and its open file descriptors and threads."""

    memory_mb: float
    descriptors: int
    threads: int


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


class Soak:
    """A device with four installed releases, and the right responses of each release."""

    def __init__(self, folder: Path) -> None:
        self.port, self.counts, self.ended = free_port(), Counts(), threading.Event()
        self.x = np.random.default_rng(1).normal(size=(200, *SHAPE)).astype(np.float32)
        self.expected: dict[str, np.ndarray] = {}
        repository = TufRepository(folder / "repository")
        serve = {"listen": f"127.0.0.1:{self.port}", "socket": "", "request_timeout_s": 10.0}
        self.device = Device(folder / "device", repository, serve=serve, install={"reserve_mb": 0.0, "keep": 4})
        for number, release in enumerate(RELEASES):
            weight = np.random.default_rng(10 + number).normal(size=(int(np.prod(SHAPE)), CLASSES)) / 30
            weight = weight.astype(np.float32)
            self.expected[release] = softmax(self.x.reshape(len(self.x), -1) @ weight)
            file = onnx_flatten_linear(folder / "model.onnx", weight, SHAPE, SIDE if release == SLOW else 0)
            described = series("soak", ["channel", "time"], list(SHAPE), SHAPE[0], CLASSES)
            bundle = folder / release
            golden = (self.x[:8], self.expected[release][:8])
            write_bundle(bundle, file, IO, described, golden, "onnx-fp32", "joinable")
            pack(bundle, folder / f"{release}.tar.zst")
            repository.publish(release, folder / f"{release}.tar.zst")
            self.device.json("install", release)

    def switch(self, number: int) -> None:
        self.device.json("activate", RELEASES[number % len(RELEASES)])
        self.device.json("confirm", "--force")

    def resources(self, pid: int) -> Resources:
        process = psutil.Process(pid)
        return Resources(process.memory_info().rss / 1e6, process.num_fds(), process.num_threads())

    # --- clients; each runs in its own thread until `ended`

    def usual(self, seed: int) -> None:
        """Send bodies of all sizes on one connection, and compare the responses."""
        rng = random.Random(seed)  # noqa: S311  (not a secret)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.ended.is_set():
            count = rng.choice((1, 1, 1, 2, 5, 20, 100, 200))
            rows = [rng.randrange(len(self.x)) for _ in range(count)]
            kind = rng.choice((RAW, JSON))
            body = self.body(rows, kind)
            if len(body) > BODY_LIMIT:
                continue
            try:
                connection.request("POST", "/predict", body, {"Content-Type": kind, "Accept": RAW})
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.counts.add(self.counts.lost, f"{type(error).__name__} {error}")
                connection.close()
                continue
            self.judge(response, content, rows)
            if response.status != 200:
                time.sleep(rng.uniform(0.05, 0.5))

    def body(self, rows: list[int], kind: str) -> bytes:
        if kind == RAW:
            return self.x[rows].tobytes()
        text = json.dumps({"inputs": self.x[rows].round(4).tolist()})
        return text.encode()

    def judge(self, response: http.client.HTTPResponse, content: bytes, rows: list[int]) -> None:
        """Count a response, and compare its probabilities with the right ones.

        Args:
            response: The response.
            content: The body of the response.
            rows: The indices of the samples in the request.
        """
        self.counts.add(self.counts.responses, str(response.status))
        if response.status == 200:
            release = response.headers["Edge-Agent-Release"]
            result = np.frombuffer(content, "<f4").reshape(len(rows), CLASSES)
            if not np.abs(result - self.expected[release][rows]).max() <= TOLERANCE:
                self.counts.add(self.counts.incorrect, release)
        elif response.status not in REFUSALS:
            self.counts.add(self.counts.lost, f"status {response.status}: {content[:200]!r}")

    def slow(self, seed: int) -> None:
        """Send a body in small pieces with pauses; every third client disconnects in the middle."""
        rng = random.Random(seed)  # noqa: S311  (not a secret)
        while not self.ended.is_set():
            rows = [rng.randrange(len(self.x)) for _ in range(rng.choice((1, 20)))]
            body = self.x[rows].tobytes()
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {RAW}\r\nAccept: {RAW}\r\n"
            head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=60) as stream:
                    stream.sendall(head.encode())
                    pieces = 8
                    for piece in range(pieces):
                        stream.sendall(body[piece * len(body) // pieces : (piece + 1) * len(body) // pieces])
                        time.sleep(rng.uniform(0, 0.4))
                        if piece == pieces // 2 and rng.random() < 1 / 3:
                            break
                    else:
                        response = http.client.HTTPResponse(stream, method="POST")
                        response.begin()
                        self.judge(response, response.read(), rows)
            except (OSError, http.client.HTTPException) as error:
                self.counts.add(self.counts.lost, f"slow client: {type(error).__name__} {error}")

    def scrape(self, _seed: int) -> None:
        """Read the metrics and the health of the service, and send requests of 1 kB that are not valid."""
        while not self.ended.wait(1.0):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            for method, path, body, expected in (
                ("GET", "/metrics", None, 200),
                ("GET", "/healthz", None, 200),
                ("POST", "/predict", b"x" * 1000, 422),
            ):
                try:
                    connection.request(method, path, body, {"Content-Type": RAW} if body else {})
                    response = connection.getresponse()
                    response.read()
                except (OSError, http.client.HTTPException) as error:
                    self.counts.add(self.counts.lost, f"{path}: {type(error).__name__} {error}")
                    break
                if response.status not in (expected, 429):
                    self.counts.add(self.counts.lost, f"{path}: status {response.status}")
            connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0, help="duration of the traffic (3600)")
    parser.add_argument("--switch-every", type=float, default=60.0, help="seconds between two switches (60)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder))
        try:
            return run(soak, arguments.seconds, arguments.switch_every)
        finally:
            soak.device.remove()


def run(soak: Soak, seconds: float, switch_every: float) -> int:
    """Run the traffic, print a line per switch, and return the exit code.

    Args:
        soak: The device.
        seconds: Duration of the traffic in seconds.
        switch_every: Time between two switches in seconds.
    """
    soak.switch(0)
    with soak.device.serving() as served:
        served.ready()
        pid = served.process.pid
        before = _traffic(soak, pid, min(seconds, 2 * len(RELEASES) * switch_every) / 4, switch_every / 4)
        print(f"after warming up: {before}", flush=True)
        after = _traffic(soak, pid, seconds, switch_every)
    counts = soak.counts
    print(f"at the end:       {after}")
    print(json.dumps({"responses": counts.responses, "lost": counts.lost, "incorrect": counts.incorrect}, indent=1))
    grown = [
        name
        for name, allowed in (("memory_mb", 0.1 * before.memory_mb), ("descriptors", 2), ("threads", 2))
        if getattr(after, name) > getattr(before, name) + allowed
    ]
    print("grown: " + (", ".join(grown) or "nothing"))
    return 1 if counts.lost or counts.incorrect or grown else 0


def _traffic(soak: Soak, pid: int, seconds: float, switch_every: float) -> Resources:
    """Run all clients for some time, and return the resources of the service ten seconds after they have ended."""
    soak.ended.clear()
    clients: list[Any] = [soak.usual] * 8 + [soak.slow] * 6 + [soak.scrape]
    threads = [threading.Thread(target=client, args=(seed,)) for seed, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    deadline, number = time.monotonic() + seconds, 0
    while (remaining := deadline - time.monotonic()) > 0:
        time.sleep(min(switch_every, remaining))
        number += 1
        soak.switch(number)
        print(f"{RELEASES[number % len(RELEASES)]}: {soak.resources(pid)} {dict(soak.counts.responses)}", flush=True)
    soak.ended.set()
    for thread in threads:
        thread.join()
    soak.switch(0)
    time.sleep(10)
    return soak.resources(pid)


if __name__ == "__main__":
    sys.exit(main())
