"""The public side of the service: opens the sockets that the configuration names, and what answers on them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from aiohttp import web as http

if TYPE_CHECKING:
    from edge_agent.service import Service


async def start(service: Service, stack: contextlib.AsyncExitStack) -> str:
    """Answer requests until `stack` unwinds; returns where. Raises OSError."""
    config = service.config
    app = _application(service)
    runner = http.AppRunner(app, access_log=None, shutdown_timeout=config.serve.request_timeout_s)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    where = []
    if config.serve.listen:
        host, _, port = config.serve.listen.rpartition(":")
        await http.TCPSite(runner, host.strip("[]"), int(port)).start()
        where.append(f"http://{config.serve.listen}")
    if config.serve.socket:
        Path(config.serve.socket).unlink(missing_ok=True)
        await http.UnixSite(runner, config.serve.socket).start()
        Path(config.serve.socket).chmod(0o660)
        where.append(config.serve.socket)
    return ", ".join(where) or "no socket"


def _application(service: Service) -> http.Application:
    async def live(request: http.Request) -> http.Response:
        return http.Response(text="ok")

    async def ready(request: http.Request) -> http.Response:
        return http.Response(status=200 if service.engine.loaded else 503)

    async def predict(request: http.Request) -> http.Response:
        x = np.asarray((await request.json())["inputs"], np.float32)
        answer = await service.engine.predict(x)
        return http.json_response({"probabilities": answer.probabilities.tolist(), "release": answer.release})

    app = http.Application()
    app.add_routes([http.get("/healthz", live), http.get("/readyz", ready), http.post("/predict", predict)])
    return app
