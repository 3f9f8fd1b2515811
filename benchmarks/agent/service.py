"""The service as a process of its own, asked over HTTP: speed, memory, start, and what a switch costs its clients."""

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
    """Times in milliseconds. `refused`: requests answered with 429, because more samples waited than `serve.queue`;
    `failed`: those without an answer.
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
    """MB (1e6 bytes). `slope_kb`: per 100000 predictions, least squares over the second half."""

    rest_mb: float
    first_mb: float
    last_mb: float
    slope_kb: float
    predictions: int
    seconds: float


@dataclass(frozen=True)
class Switch:
    """`gap_ms`: longest time in which none of the clients got an answer, `still_gap_ms` without any switch."""

    clients: int
    switches: int
    answered: int
    lost: int
    gap_ms: float
    still_gap_ms: float


class Bench:
    """A device with two releases installed, the first current and confirmed."""

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
        """Median seconds from spawning the service to /readyz 200, and of `edge-agent status`."""
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
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except ConnectionRefusedError:
            return 0
        finally:
            connection.close()

    def bodies(self) -> list[tuple[str, bytes, str]]:
        """Name, content and content type."""
        one = self.x[:1]
        sixteen = np.resize(self.x, (16, *SHAPE))
        return [
            ("1 sample, binary", one.tobytes(), RAW),
            ("1 sample, JSON", json.dumps({"inputs": one.tolist()}).encode(), JSON),
            ("16 samples, binary", sixteen.tobytes(), RAW),
        ]

    def load(self, seconds: int) -> list[Load]:
        """wrk on one thread, its connections kept open, each with one request under way."""
        found = []
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
                said = subprocess.run(
                    [*command, f"--script={script}", url], capture_output=True, text=True, check=True
                ).stdout
                result = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", said)
                assert result, said
                requests, took_us, p50_us, p99_us, refused, failed = map(int, result.groups())
                found.append(Load(name, clients, 1e6 * requests / took_us, p50_us / 1e3, p99_us / 1e3, refused, failed))
        return found

    def memory(self, pid: int, predictions: int) -> Memory:
        """In requests of BATCH samples. The first tenth fills what is bounded: allocator, window for feedback."""
        process = psutil.Process(pid)
        body = np.resize(self.x, (BATCH, *SHAPE)).tobytes()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        began, steps, seen = time.perf_counter(), 20, [process.memory_info().rss / 1e6]
        for _ in range(steps):
            for _ in range(predictions // steps // BATCH):
                connection.request("POST", "/predict", body, {"Content-Type": RAW, "Accept": RAW})
                answer = connection.getresponse()
                content = answer.read()
                assert answer.status == 200, content
            seen.append(process.memory_info().rss / 1e6)
        connection.close()
        half = seen[steps // 2 :]
        slope = np.polyfit(np.arange(len(half)) * predictions / steps, half, 1)[0]
        seconds = time.perf_counter() - began
        return Memory(seen[0], seen[2], seen[-1], float(slope) * 1e5 * 1e3, predictions, seconds)

    def switch(self, clients: int, switches: int) -> Switch:
        """Activate one release after the other, each with its self-test, while clients ask without a pause."""
        end = threading.Event()
        times: list[float] = []
        lost: list[str] = []
        asking = [threading.Thread(target=self._client, args=(end, times, lost)) for _ in range(clients)]
        for thread in asking:
            thread.start()
        try:
            began = time.perf_counter()
            end.wait(2.0)
            still = time.perf_counter()
            for number in range(switches):
                self._activate(RELEASES[(number + 1) % 2])
            ended = time.perf_counter()
        finally:
            end.set()
            for thread in asking:
                thread.join()
        gap = _longest(times, still, ended)
        return Switch(clients, switches, len(times), len(lost), 1e3 * gap, 1e3 * _longest(times, began, still))

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
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    times.append(time.perf_counter())
                else:
                    lost.append(str(answer.status))
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))
                connection.close()
        connection.close()


def _longest(times: list[float], began: float, ended: float) -> float:
    """Longest time between two answers of any client."""
    within = sorted(value for value in times if began <= value <= ended)
    return float(np.diff([began, *within, ended]).max())
