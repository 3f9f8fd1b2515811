"""The service's side of control.sock; edge_agent.lifecycle.control_client is the other one, and lists what there is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edge_agent.core.errors import AgentError, NoReleaseError, ServiceError
from edge_agent.inference.loading import Loaded, beside
from edge_agent.inference.shadow import Shadow

if TYPE_CHECKING:
    from edge_agent.service.supervisor import Service

# Its owner and its group: who may write to it may switch releases.
MODE = 0o660
STEP_S = 0.25  # between two looks at a shadow; a line goes out each second


async def start(service: Service, stack: contextlib.AsyncExitStack) -> None:
    """Listen on control.sock until `stack` unwinds. Raises OSError."""
    layout = service.config.layout
    layout.run.mkdir(parents=True, exist_ok=True)
    layout.control_socket.unlink(missing_ok=True)  # one that a killed service left refuses all
    runner = web.AppRunner(application(service), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.UnixSite(runner, str(layout.control_socket)).start()
    layout.control_socket.chmod(MODE)


def application(service: Service) -> web.Application:
    async def status(request: web.Request) -> web.Response:
        return web.json_response(_status(service))

    async def report(request: web.Request) -> web.Response:
        return web.json_response(service.counts.report())

    async def reconcile(request: web.Request) -> web.Response:
        error = await service.follow(again=True)
        return web.json_response({"loaded": _loaded(service.engine.loaded), "error": error})

    async def shadow_now(request: web.Request) -> web.Response:
        return web.json_response({"shadow": service.shadow.summary() if service.shadow else None})

    async def shadow(request: web.Request) -> web.StreamResponse:
        return await _shadow(service, request)

    app = web.Application()
    app.add_routes(
        [
            web.get("/status", status),
            web.get("/report", report),
            web.post("/reconcile", reconcile),
            web.get("/shadow", shadow_now),
            web.post("/shadow", shadow),
        ]
    )
    return app


def _loaded(loaded: Loaded | None) -> dict[str, str] | None:
    if loaded is None:
        return None
    return {"release": loaded.release, "target": loaded.target, "sha256": loaded.sha256}


def _status(service: Service) -> dict[str, Any]:
    healthy, reason = service.healthy()
    on = service.known.trial
    return {
        "loaded": _loaded(service.engine.loaded),
        "healthy": healthy,
        "reason": reason,
        "ready": service.engine.loaded is not None,
        "trial": service.trial_so_far() if on else None,
        "uptime_seconds": round(time.monotonic() - service.started, 1),
        "events": list(service.events),
    }


async def _shadow(service: Service, request: web.Request) -> web.StreamResponse:
    """Runs as long as the caller listens: one that goes away ends it."""
    wanted = await request.json()
    try:
        candidate = await _candidate(service, wanted["release"])
    except AgentError as error:
        return web.json_response(error.as_json(), status=409)
    current = service.engine.loaded
    assert current is not None
    shadow = Shadow(candidate, current, int(wanted["samples"]), float(wanted["seconds"]))
    service.shadow = shadow
    service.engine.observers.append(shadow.observe)
    service.event("shadow", f"comparing {candidate.release} with {current.release}", release=candidate.release)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    try:
        await response.prepare(request)
        told = time.monotonic()
        while (found := shadow.summary())["ended"] is None:
            if time.monotonic() - told >= 1.0:
                await response.write(json.dumps(found).encode() + b"\n")
                told = time.monotonic()
            await asyncio.sleep(STEP_S)
        await response.write(json.dumps(found).encode() + b"\n")
        await response.write_eof()
    finally:
        shadow.end("nobody listens any more")
        service.engine.observers.remove(shadow.observe)
        found = shadow.summary()
        service.event(
            "shadow_ended", f"{found['samples']} samples compared: {found['ended']}", release=candidate.release
        )
    return response


async def _candidate(service: Service, release: str) -> Loaded:
    """Loaded beside the current release. Raises AgentError."""
    current = service.engine.loaded
    if current is None:
        raise NoReleaseError("shadow", "no release is loaded", "one to compare with", "activate one first")
    if service.shadow is not None and service.shadow.summary()["ended"] is None:
        busy = service.shadow.candidate.release
        raise ServiceError("shadow", f"{busy} is being compared", "one at a time", "wait for it, or end it")
    if release == current.release:
        raise ServiceError("shadow", f"{release} is loaded", "another release", "name the candidate")
    candidate = await beside(service.config, release)
    if candidate.model.shape != current.model.shape:
        raise ServiceError(
            "shadow",
            f"{release} reads inputs of shape {candidate.model.shape}",
            f"{current.model.shape}, as {current.release} does",
            "compare releases of one task",
        )
    return candidate
