"""The agent's own HTTP application on a free port, in a thread with its own event loop; requests as bytes."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import socket
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiohttp import web as aiohttp_web
from edge_agent.api import http_server, web
from edge_agent.core.config import Config
from edge_agent.inference.engine import Engine, LoadedRelease
from edge_agent.monitoring.capture import Capture
from edge_agent.monitoring.health import Health
from edge_agent.monitoring.prometheus import MetricsExporter
from edge_agent.monitoring.service_statistics import ServiceStatistics


def npy(x: np.ndarray) -> bytes:
    """Return the bytes that np.save writes."""
    stream = io.BytesIO()
    np.save(stream, x, allow_pickle=True)
    return stream.getvalue()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Agent:
    """A running agent: `call` runs a coroutine in its event loop."""

    port: int
    loop: asyncio.AbstractEventLoop
    engine: Engine
    statistics: ServiceStatistics
    health: Health
    capture: Capture | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def ask(self, method: str, path: str, body: Any = None, kind: str | None = None, **headers: str) -> Reply:
        """Send one request on a new connection. `body` is bytes, or a value that is sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            body, kind = json.dumps(body).encode(), kind or "application/json"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if kind is not None:
            named["Content-Type"] = kind
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def raw(self, data: bytes, *, end: bool = False) -> bytes:
        """Everything that comes back for these bytes until the agent closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as stream:
            stream.sendall(data)
            if end:
                stream.shutdown(socket.SHUT_WR)
            parts = []
            with contextlib.suppress(ConnectionError):
                while part := stream.recv(1 << 16):
                    parts.append(part)
            return b"".join(parts)


@contextlib.contextmanager
def serving(config: Config, loaded: LoadedRelease | None = None) -> Iterator[Agent]:
    """An agent that serves `loaded`, put together as the service does."""
    ready: list[Agent] = []
    started = threading.Event()

    async def main() -> None:
        engine, statistics = Engine(config.serve), ServiceStatistics(config)
        statistics.attach(engine)
        health = Health(engine, config.serve.request_timeout_s, config.trial.error_share)
        capture = Capture(config) if config.capture.enabled else None
        await engine.swap(loaded)
        metrics = MetricsExporter(statistics, health.condition, capture.usage if capture else None)
        app = web.create_application(engine, statistics, config, metrics, capture)
        runner = http_server.create_runner(app, config.serve)
        await runner.setup()
        await aiohttp_web.TCPSite(runner, "127.0.0.1", 0).start()
        loop = asyncio.get_running_loop()
        ready.append(Agent(runner.addresses[0][1], loop, engine, statistics, health, capture))
        ended.append(asyncio.Event())
        started.set()
        await ended[0].wait()
        await runner.cleanup()
        await engine.close()
        if capture is not None:
            await asyncio.to_thread(capture.close)

    ended: list[asyncio.Event] = []
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(30)
    try:
        yield ready[0]
    finally:
        ready[0].loop.call_soon_threadsafe(ended[0].set)
        thread.join(60)
        assert not thread.is_alive()
