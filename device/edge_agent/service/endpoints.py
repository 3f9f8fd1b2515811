"""Open the service's public sockets: HTTP, metrics and MQTT, as configured."""

from __future__ import annotations

import contextlib
from pathlib import Path

from aiohttp import web as http

from edge_agent.api import http_server, web
from edge_agent.api.predictions import PredictionHandler
from edge_agent.core.errors import ServiceError
from edge_agent.monitoring.capture import Capture
from edge_agent.monitoring.prometheus import MetricsExporter
from edge_agent.service.supervisor import Supervisor

MODE = 0o660  # programs that run with the socket's group may request predictions


async def start(service: Supervisor, stack: contextlib.AsyncExitStack) -> str:
    """Open the configured sockets, and return their addresses as text. The sockets close when `stack` unwinds.

    Raises ServiceError if an address is in use or cannot be opened.
    """
    try:
        return await _start(service, stack)
    except OSError as error:
        raise ServiceError(
            "serve.listen, serve.socket or serve.metrics_listen",
            error.strerror or str(error),
            "an address that is free and that the agent may open",
            "find the process that uses the address (ss -ltnp), or configure another address",
        ) from None


async def _start(service: Supervisor, stack: contextlib.AsyncExitStack) -> str:
    config, engine, statistics = service.config, service.engine, service.statistics
    capture = None
    if config.capture.enabled:
        capture = Capture(config)
        stack.callback(capture.close)
    metrics = MetricsExporter(statistics, service.condition, capture.usage if capture else None)
    app = web.create_application(engine, statistics, config, metrics, capture)
    addresses = await _open(app, config.serve.listen, service, stack)
    if config.serve.socket:
        path = Path(config.serve.socket)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a stale socket of a killed service refuses every connection
        runner = await _runner(app, service, stack)
        await http.UnixSite(runner, str(path)).start()
        path.chmod(MODE)
        addresses.append(str(path))
    public = web.create_metrics_application(engine, statistics, config, metrics)
    addresses += [f"{address}/metrics" for address in await _open(public, config.serve.metrics_listen, service, stack)]
    if config.mqtt.host:
        from edge_agent.api.mqtt import Mqtt

        bridge = Mqtt(PredictionHandler(engine, statistics, config, capture))
        bridge.start()
        stack.push_async_callback(bridge.stop)
        addresses.append(f"mqtt {config.mqtt.host}:{config.mqtt.port}")
    return ", ".join(addresses) or "no socket"


async def _open(app: http.Application, listen: str, service: Supervisor, stack: contextlib.AsyncExitStack) -> list[str]:
    if not listen:
        return []
    host, _, port = listen.rpartition(":")
    runner = await _runner(app, service, stack)
    # Without reuse_port, a second service on the same address fails instead of receiving half of the requests.
    await http.TCPSite(runner, host.strip("[]"), int(port)).start()
    return [f"http://{name[0]}:{name[1]}" for name in runner.addresses]


async def _runner(app: http.Application, service: Supervisor, stack: contextlib.AsyncExitStack) -> http.AppRunner:
    runner = http_server.create_runner(app, service.config.serve)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner
