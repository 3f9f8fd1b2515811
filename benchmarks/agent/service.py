"""Measure the service over HTTP as a separate process: speed, memory, start time, and gaps while it switches."""

from __future__ import annotations

import http.client
import json
import re
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from tests.support.agent.bundles import SHAPE
from tests.support.agent.cli import Device
from tests.support.agent.releases import Releases
from tests.support.requirements import need_program
from tests.support.servers import free_port

RAW, JSON = "application/octet-stream", "application/json"
CLIENTS = (1, 8, 64)
RELEASES = ("pump@1.0.0", "pump@2.0.0")
BATCH = 500
LUA = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "%(kind)s"
wrk.headers["Accept"] = "%(kind)s"
local file = io.open("%(body)s", "rb")
wrk.body = file:read("*a")
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """The result of one load test; latencies in milliseconds.

    `refused`: requests that got status 429 because the queue (`serve.queue`) was full. `failed`: requests without a
    response.
    """

    body: str
    clients: int
    per_second: float
    p50_ms: float
    p99_ms: float
    refused: int
    failed: int


@dataclass(frozen=True)
class Memory:
    """Memory in MB (1e6 bytes). `slope_kb`: growth in kB per 100000 predictions, fitted to the second half."""

    rest_mb: float
    first_mb: float
    last_mb: float
    slope_kb: float
    predictions: int
    seconds: float


@dataclass(frozen=True)
class Switch:
    """Effects of switches between releases.

    `gap_ms`: longest time without a response to any client during the switches. `still_gap_ms`: the same before them.
    """

    clients: int
    switches: int
    answered: int
    lost: int
    gap_ms: float
    still_gap_ms: float


class Bench:
    """A device with two installed releases; the first one is current and confirmed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        releases = Releases(folder / "releases")
        trial = {"seconds": 0.0, "inferences": 1, "probe_interval_s": 0.05}
        self.device = Device(
            folder / "device",
            releases.repository,
            serve={"listen": f"127.0.0.1:{self.port}", "socket": ""},
            trial=trial,
        )
        for release in RELEASES:
            self.x = releases.publish(release).inputs
            self.device.json("install", release)
        self.device.json("activate", RELEASES[0])
        self.device.json("confirm", "--force")

    def close(self) -> None:
        self.device.remove()

    def starts(self, times: int) -> tuple[float, float]:
        """Return two median durations: until /readyz of a started service returns 200, and of `edge-agent status`."""
        ready, status = [], []
        for _ in range(times):
            began = time.perf_counter()
            with self.device.serving():
                while self._ask("GET", "/readyz", b"", RAW) != 200:
                    time.sleep(0.002)
                ready.append(time.perf_counter() - began)
                began = time.perf_counter()
                assert self.device.call("status").returncode == 0
                status.append(time.perf_counter() - began)
        return statistics.median(ready), statistics.median(status)

    def _ask(self, method: str, path: str, body: bytes, kind: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {"Content-Type": kind, "Accept": kind})
            response = connection.getresponse()
            response.read()
            return response.status
        except ConnectionRefusedError:
            return 0
        finally:
            connection.close()

    def bodies(self) -> list[tuple[str, bytes, str]]:
        """Return the tested request bodies: name, content and content type."""
        one = self.x[:1]
        sixteen = np.resize(self.x, (16, *SHAPE))
        return [
            ("1 sample, binary", one.tobytes(), RAW),
            ("1 sample, JSON", json.dumps({"inputs": one.tolist()}).encode(), JSON),
            ("16 samples, binary", sixteen.tobytes(), RAW),
        ]

    def load(self, seconds: int) -> list[Load]:
        """Run wrk with each body and number of clients. Every client sends one request after the other."""
        loads = []
        for name, content, kind in self.bodies():
            body, script = self.folder / "body", self.folder / "post.lua"
            body.write_bytes(content)
            script.write_text(LUA % {"kind": kind, "body": body})
            for clients in CLIENTS:
                command = [
                    need_program("wrk", "wrk"),
                    "--threads=1",
                    f"--connections={clients}",
                    f"--duration={seconds}s",
                ]
                url = f"http://127.0.0.1:{self.port}/predict"
                output = subprocess.run(
                    [*command, f"--script={script}", url], capture_output=True, text=True, check=True
                ).stdout
                result = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", output)
                assert result, output
                requests, duration_us, p50_us, p99_us, refused, failed = map(int, result.groups())
                per_second = 1e6 * requests / duration_us
                loads.append(Load(name, clients, per_second, p50_us / 1e3, p99_us / 1e3, refused, failed))
        return loads

    def memory(self, pid: int, predictions: int) -> Memory:
        """Measure the memory over many predictions, in requests of BATCH samples.

        The first tenth of the predictions fills memory of limited size: the allocator's, and the window for feedback.
        """
        process = psutil.Process(pid)
        body = np.resize(self.x, (BATCH, *SHAPE)).tobytes()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        began, steps, memory = time.perf_counter(), 20, [process.memory_info().rss / 1e6]
        for _ in range(steps):
            for _ in range(predictions // steps // BATCH):
                connection.request("POST", "/predict", body, {"Content-Type": RAW, "Accept": RAW})
                response = connection.getresponse()
                content = response.read()
                assert response.status == 200, content
            memory.append(process.memory_info().rss / 1e6)
        connection.close()
        half = memory[steps // 2 :]
        slope = np.polyfit(np.arange(len(half)) * predictions / steps, half, 1)[0]
        seconds = time.perf_counter() - began
        return Memory(memory[0], memory[2], memory[-1], float(slope) * 1e5 * 1e3, predictions, seconds)

    def switch(self, clients: int, switches: int) -> Switch:
        """Activate releases in turn, each with its self-test, while clients send requests continuously."""
        end = threading.Event()
        times: list[float] = []
        lost: list[str] = []
        threads = [threading.Thread(target=self._client, args=(end, times, lost)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            began = time.perf_counter()
            end.wait(2.0)
            switching = time.perf_counter()
            for number in range(switches):
                self._activate(RELEASES[(number + 1) % 2])
            ended = time.perf_counter()
        finally:
            end.set()
            for thread in threads:
                thread.join()
        gap = _longest_gap(times, switching, ended)
        return Switch(clients, switches, len(times), len(lost), 1e3 * gap, 1e3 * _longest_gap(times, began, switching))

    def _activate(self, release: str) -> None:
        self.device.json("activate", release)
        while self.device.state.trial is not None:
            time.sleep(0.02)

    def _client(self, end: threading.Event, times: list[float], lost: list[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        body = self.x[:1].tobytes()
        while not end.is_set():
            try:
                connection.request("POST", "/predict", body, {"Content-Type": RAW, "Accept": RAW})
                response = connection.getresponse()
                response.read()
                if response.status == 200:
                    times.append(time.perf_counter())
                else:
                    lost.append(str(response.status))
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))
                connection.close()
        connection.close()


def _longest_gap(times: list[float], began: float, ended: float) -> float:
    """Return the longest time in seconds between two responses to any clients."""
    within = sorted(value for value in times if began <= value <= ended)
    return float(np.diff([began, *within, ended]).max())
