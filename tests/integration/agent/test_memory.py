"""The memory of the service has a bound in bytes, and clients over the bound read the status 429."""

from __future__ import annotations

import collections
import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import psutil
import pytest

from stages.package.archive import pack
from tests.support.agent.cli import Device, ServiceProcess
from tests.support.agent.model_files import description, onnx_flatten_linear
from tests.support.agent.third_party import series, write_bundle
from tests.support.agent.tuf_repository import TufRepository
from tests.support.servers import free_port

pytestmark = pytest.mark.slow  # the service runs as a process, with a slow model

RELEASE = "slow@1.0.0"
SHAPE, CLASSES = (2, 4096), 3
RAW, NPY, JSON = "application/octet-stream", "application/x-npy", "application/json"
BODY_BYTES = 7_700_000
WAITING = 57
BOUND_MB = 64  # above the memory at rest, in addition to the samples of one run
RUN_MB = 16 * 4 * np.prod(SHAPE) / 1e6
SIDE = 900  # a run of the model takes some tens of milliseconds


@dataclass
class Service:
    """A running service. `peak_mb` is the largest resident memory since the start, in 1e6 bytes."""

    port: int
    served: ServiceProcess
    peak_mb: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        process = psutil.Process(self.served.process.pid)
        while not self.ended.wait(0.005):
            self.peak_mb = max(self.peak_mb, process.memory_info().rss / 1e6)

    def ask(self, body: bytes, kind: str, timeout_s: float = 60) -> int:
        """Return the status of one request on a new connection. Raises OSError if the connection is reset."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request("POST", "/predict", body, {"Content-Type": kind, "Accept": RAW})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def ask_together(self, body: bytes, kind: str, clients: int) -> collections.Counter[str]:
        """Return how many of several simultaneous requests got each status, or which error."""
        results: collections.Counter[str] = collections.Counter()
        barrier = threading.Barrier(clients)

        def client() -> None:
            barrier.wait()
            try:
                result = str(self.ask(body, kind))
            except (OSError, http.client.HTTPException) as error:
                result = repr(error)
            results[result] += 1

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("memory")
    weight = np.random.default_rng(2).normal(size=(int(np.prod(SHAPE)), CLASSES)).astype(np.float32) / 90
    file = onnx_flatten_linear(folder / "model.onnx", weight, SHAPE, SIDE)
    golden = np.random.default_rng(3).normal(size=(8, *SHAPE)).astype(np.float32)
    logits = golden.reshape(len(golden), -1) @ weight
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    described = series("slow", ["channel", "time"], list(SHAPE), SHAPE[0], CLASSES)
    io_ = description("onnxruntime", list(SHAPE), CLASSES)
    answers = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    write_bundle(folder / "bundle", file, io_, described, (golden, answers), "onnx-fp32", "joinable")
    pack(folder / "bundle", folder / "slow.tar.zst")
    repository = TufRepository(folder / "repository")
    repository.publish(RELEASE, folder / "slow.tar.zst")
    port = free_port()
    device = Device(folder / "device", repository, serve={"listen": f"127.0.0.1:{port}", "socket": ""})
    device.json("deploy", RELEASE)
    with device.serving() as served:
        served.ready()
        device.json("confirm", "--force")
        watched = Service(port, served)
        assert watched.ask(golden[:1].tobytes(), RAW) == 200
        thread = threading.Thread(target=watched.watch)
        thread.start()
        yield watched
        watched.ended.set()
        thread.join()
    device.remove()


def body_of(kind: str) -> bytes:
    """Return the body of a valid request with about 7.7 MB."""
    count = BODY_BYTES // (4 * int(np.prod(SHAPE)))
    x = np.random.default_rng(4).normal(size=(count, *SHAPE)).astype(np.float32)
    if kind == RAW:
        return x.tobytes()
    if kind == NPY:
        stream = io.BytesIO()
        np.save(stream, x)
        return stream.getvalue()
    # numbers with few digits: the body has more of them, and they need more memory
    rows = [json.dumps(row) for row in x.round(2).tolist()]
    text = json.dumps(x.round(2).tolist())
    rows = rows[: max(int(len(rows) * BODY_BYTES / len(text)), 1)]
    return f'{{"inputs": [{", ".join(rows)}]}}'.encode()


def rest_mb(service: Service) -> float:
    time.sleep(0.5)
    return float(psutil.Process(service.served.process.pid).memory_info().rss / 1e6)


@pytest.mark.parametrize("kind", [RAW, NPY, JSON])
def test_the_memory_of_waiting_requests_is_bounded(service: Service, kind: str) -> None:
    body = body_of(kind)
    service.peak_mb, rest = 0.0, rest_mb(service)

    results = service.ask_together(body, kind, WAITING)

    print(f"{service.peak_mb:.0f} MB, {rest:.0f} MB at rest, {results}")
    assert set(results) <= {"200", "429"}, results
    assert min(results["200"], results["429"]) > 0
    assert service.peak_mb <= rest + BOUND_MB + RUN_MB, f"{service.peak_mb:.0f} MB, {rest:.0f} MB at rest, {results}"
    assert service.ask(body_of(RAW)[: 4 * int(np.prod(SHAPE))], RAW) == 200  # one sample


@pytest.mark.parametrize("kind", [RAW, JSON])
def test_a_burst_of_clients_reads_a_response_each(service: Service, kind: str) -> None:
    results = service.ask_together(body_of(kind), kind, 100)

    assert set(results) <= {"200", "429"}, results


def test_a_request_that_ends_early_returns_its_bytes(service: Service) -> None:
    """Far more bytes than the bound end in each way; a large request is then accepted."""
    full = body_of(RAW)
    for _ in range(6):
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Type", RAW)
        connection.putheader("Content-Length", str(len(full)))
        connection.endheaders()
        connection.send(full[: len(full) // 2])
        connection.close()  # the client disconnects in the middle
        assert service.ask(full[:-1], RAW) == 422  # not a whole number of samples
        assert service.ask(b"[" * 5_000_000, JSON) in (400, 413, 422)
        assert service.ask(full + full, RAW) == 413

    sample = 4 * int(np.prod(SHAPE))
    while (status := service.ask(full[: 20 * sample], RAW)) == 429:
        time.sleep(0.1)

    assert status == 200
