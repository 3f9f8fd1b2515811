"""The HTTP server on the unix socket control.sock. The docstring of lifecycle/control_client.py lists the requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from edge_agent.core.errors import AgentError, NoReleaseError, ServiceError
from edge_agent.inference.loading import LoadedRelease, load_in_background
from edge_agent.inference.shadow import Shadow
from edge_agent.service.supervisor import Supervisor

# Only the owner and the group may write to the socket, because a process that can write to it can switch releases.
MODE = 0o660
STEP_S = 0.25  # seconds between two checks whether a comparison has ended; a line is sent each second


@dataclass(frozen=True)
class ShadowRequest:
    """The request to compare `release` with the loaded release for at most `samples` inputs and `seconds` seconds."""

    release: str
    samples: int
    seconds: float

    @classmethod
    def parse(cls, value: dict[str, Any]) -> ShadowRequest:
        return cls(value["release"], int(value["samples"]), float(value["seconds"]))


async def start(service: Supervisor, stack: contextlib.AsyncExitStack) -> None:
    """Start the server on control.sock. The server stops when `stack` unwinds. Raises OSError."""
    layout = service.config.layout
    layout.run.mkdir(parents=True, exist_ok=True)
    layout.control_socket.unlink(missing_ok=True)  # a stale socket of a killed service refuses every connection
    runner = web.AppRunner(create_application(service), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.UnixSite(runner, str(layout.control_socket)).start()
    layout.control_socket.chmod(MODE)


def create_application(service: Supervisor) -> web.Application:
    """Create the aiohttp application with the routes of control.sock."""
    routes = _Routes(service)
    app = web.Application()
    app.add_routes(
        [
            web.get("/status", routes.status),
            web.get("/report", routes.report),
            web.post("/reconcile", routes.reconcile),
            web.get("/shadow", routes.last_shadow),
            web.post("/shadow", routes.run_shadow),
        ]
    )
    return app


class _Routes:
    """The handlers of the requests on control.sock. `shadow` is the running or last comparison, or None."""

    def __init__(self, service: Supervisor) -> None:
        self.service = service
        self.shadow: Shadow | None = None

    async def status(self, _request: web.Request) -> web.Response:
        service = self.service
        condition = service.condition()
        value = {
            "loaded": _loaded(service.engine.loaded),
            "healthy": condition.healthy,
            "reason": condition.detail,
            "ready": service.engine.loaded is not None,
            "trial": service.judge.status() if service.loader.state.trial else None,
            "uptime_seconds": round(time.monotonic() - service.started, 1),
            "events": list(service.events),
        }
        return web.json_response(value)

    async def report(self, _request: web.Request) -> web.Response:
        return web.json_response(self.service.statistics.report())

    async def reconcile(self, _request: web.Request) -> web.Response:
        error = await self.service.loader.follow(retry=True)
        return web.json_response({"loaded": _loaded(self.service.engine.loaded), "error": error})

    async def last_shadow(self, _request: web.Request) -> web.Response:
        return web.json_response({"shadow": self.shadow.summary() if self.shadow else None})

    async def run_shadow(self, request: web.Request) -> web.StreamResponse:
        """Compare a candidate release with the loaded release, and send a summary each second.

        If the caller disconnects, the comparison ends.
        """
        service, requested = self.service, ShadowRequest.parse(await request.json())
        try:
            candidate = await self._candidate(requested.release)
        except AgentError as error:
            return web.json_response(error.as_json(), status=409)
        current = service.engine.loaded
        assert current is not None
        self.shadow = shadow = Shadow(candidate, current, requested.samples, requested.seconds)
        service.engine.observers.append(shadow.observe)
        text = f"comparing {candidate.release} with {current.release}"
        service.events.add("shadow", text, release=candidate.release)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        try:
            await response.prepare(request)
            await _stream(shadow, response)
        finally:
            shadow.end("the caller disconnected")
            service.engine.observers.remove(shadow.observe)
            summary = shadow.summary()
            text = f"{summary['samples']} samples compared: {summary['ended']}"
            service.events.add("shadow_ended", text, release=candidate.release)
        return response

    async def _candidate(self, release: str) -> LoadedRelease:
        """Load the candidate `release`, while the current release stays loaded. Raises AgentError."""
        current = self.service.engine.loaded
        if current is None:
            raise NoReleaseError(
                "shadow",
                "no release is loaded",
                "a loaded release to compare with",
                "activate a release first: edge-agent activate RELEASE",
            )
        if self.shadow is not None and self.shadow.summary()["ended"] is None:
            busy = self.shadow.candidate.release
            raise ServiceError(
                "shadow",
                f"{busy} is being compared",
                "one comparison at a time",
                "wait until that comparison ends, or end it",
            )
        if release == current.release:
            raise ServiceError(
                "shadow", f"{release} is the loaded release", "another installed release", "name another release"
            )
        candidate = await load_in_background(self.service.config, release)
        if candidate.model.shape != current.model.shape:
            raise ServiceError(
                "shadow",
                f"{release} reads inputs of shape {candidate.model.shape}",
                f"{current.model.shape}, the input shape of {current.release}",
                "compare releases of the same task",
            )
        return candidate


def _loaded(loaded: LoadedRelease | None) -> dict[str, str] | None:
    if loaded is None:
        return None
    return {"release": loaded.release, "target": loaded.target, "sha256": loaded.sha256}


async def _stream(shadow: Shadow, response: web.StreamResponse) -> None:
    """Write the summary of the comparison as one line of JSON each second, and once more after the comparison ends."""

    async def write(summary: dict[str, Any]) -> None:
        await response.write(json.dumps(summary).encode() + b"\n")

    written = time.monotonic()
    while (summary := shadow.summary())["ended"] is None:
        if time.monotonic() - written >= 1.0:
            await write(summary)
            written = time.monotonic()
        await asyncio.sleep(STEP_S)
    await write(summary)
    await response.write_eof()
