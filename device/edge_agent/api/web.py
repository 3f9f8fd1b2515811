"""The agent's HTTP interface, which openapi.json describes. Every error is a problem document (RFC 9457).

The response to an invalid request has a 4xx status, and says what was found and what was expected. A 5xx status means
that the service cannot answer a valid request, such as 503 if no release is loaded or 500 if the model fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from edge_agent.api.http_server import answer_expect, problem_response
from edge_agent.api.predictions import PredictionHandler, busy, result_json
from edge_agent.core.config import Config
from edge_agent.inference import input_formats
from edge_agent.inference.engine import Engine
from edge_agent.inference.input_formats import ProblemError
from edge_agent.inference.memory_budget import HeldBytes, OverBudgetError
from edge_agent.monitoring.capture import Capture, parse_since
from edge_agent.monitoring.prometheus import MetricsExporter
from edge_agent.monitoring.service_statistics import ServiceStatistics

log = logging.getLogger("edge_agent.web")  # the logger's name becomes the event of its log records

OPENAPI_FILE = Path(__file__).with_name("openapi.json")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Routes:
    """The functions that handle the routes of one web application, and the data that these functions share."""

    def __init__(self, handler: PredictionHandler, metrics: MetricsExporter) -> None:
        self.handler, self.metrics, self.condition = handler, metrics, metrics.condition
        self.limit = int(handler.config.serve.body_limit_mb * 1e6)
        self.timeout_s = handler.config.serve.request_timeout_s
        self.openapi = OPENAPI_FILE.read_bytes()

    async def predict(self, request: web.Request) -> web.Response:
        content_type = _content_type(request)
        with self.handler.engine.memory.hold() as held:
            result, ids = await self.handler.predict(await self.body(request, held), content_type, held)
        if input_formats.RAW not in request.headers.get("Accept", ""):
            return web.json_response(result_json(result, ids))
        headers = {
            "Edge-Agent-Release": result.release,
            "Edge-Agent-Target": result.target,
            "Edge-Agent-Model-Sha256": result.sha256,
            "Edge-Agent-First-Id": ids[0],
        }
        raw = np.ascontiguousarray(result.probabilities, dtype="<f4").tobytes()
        return web.Response(body=raw, content_type=input_formats.RAW, headers=headers)

    async def feedback(self, request: web.Request) -> web.Response:
        content_type = _content_type(request)
        if content_type != input_formats.JSON:
            raise ProblemError(
                415,
                "feedback must be JSON",
                headers={"Accept": input_formats.JSON},
                found=content_type,
                expected=input_formats.JSON,
            )
        with self.handler.engine.memory.hold() as held:
            return web.json_response(self.handler.feedback(await self.body(request, held)))

    async def healthz(self, _request: web.Request) -> web.Response:
        """Respond with 503 only if golden samples are wrong, so that no supervisor restarts a device in a loop."""
        condition, loaded = self.condition(), self.handler.engine.loaded
        if condition.reason == "golden_samples_wrong":
            raise ProblemError(503, condition.detail, reason=condition.reason)
        golden = {} if loaded is None else {"golden": True}
        release = None if loaded is None else loaded.release
        return web.json_response({"status": "ok", "release": release, **golden, "reason": condition.reason})

    async def readyz(self, _request: web.Request) -> web.Response:
        condition, loaded = self.condition(), self.handler.engine.loaded
        if loaded is None or not condition.ready:
            raise ProblemError(503, condition.detail, headers={"Retry-After": "5"}, reason=condition.reason)
        return web.json_response({"status": "ready", "release": loaded.release, "reason": condition.reason})

    async def info(self, _request: web.Request) -> web.Response:
        loaded, device = self.handler.engine.loaded, self.handler.config.device
        value: dict[str, Any] = {"device": {"id": device.id, "type": device.type}, "release": None}
        if loaded is not None:
            value |= {
                "release": loaded.release,
                "target": loaded.target,
                "model_sha256": loaded.sha256,
                "runtime": loaded.io["runtime"],
                "trial": self.handler.statistics.trial,
                **{name: loaded.manifest[name] for name in ("name", "description", "licence", "input", "output")},
            }
        return web.json_response(value)

    async def samples(self, request: web.Request) -> web.StreamResponse:
        assert self.handler.capture is not None
        since = parse_since(request.query.get("since"))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        lines = await asyncio.to_thread(self.handler.capture.lines, since)
        while block := await asyncio.to_thread(lambda: b"".join(next(lines, b"") for _ in range(64))):
            await response.write(block)
        return response

    async def render_metrics(self, request: web.Request) -> web.Response:
        content, content_type = self.metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=content, headers={"Content-Type": content_type})

    async def describe(self, _request: web.Request) -> web.Response:
        return web.Response(body=self.openapi, content_type="application/json")

    async def body(self, request: web.Request, held: HeldBytes) -> bytearray:
        """Read the whole body of a request, and count its bytes in `held` while they arrive.

        Bytes are counted when they arrive, and not when the header announces them, so that a slow client does not
        reserve memory that it does not use. Raises ProblemError if the body is missing, invalid or too large, does not
        arrive in time, or does not fit into the memory for requests.
        """
        if request.content_length is None and not request.body_exists:
            raise ProblemError(411, "the request has no body", expected="the header Content-Length, or a chunked body")
        too_large = ProblemError(413, "the body is too large", expected=f"at most {self.limit} bytes")
        if (request.content_length or 0) > self.limit:
            raise too_large
        content = bytearray()

        async def read() -> None:
            while part := await request.content.readany():
                if len(content) + len(part) > self.limit:
                    raise too_large
                try:
                    held.resize(len(content) + len(part))
                except OverBudgetError as error:
                    content.clear()
                    held.resize(0)  # at once, so that not every other request is refused too
                    raise busy(str(error)) from None
                content.extend(part)

        try:
            await asyncio.wait_for(read(), self.timeout_s)
        except asyncio.TimeoutError:
            raise ProblemError(
                408, f"the body did not arrive within {self.timeout_s:g} s", found=f"{len(content)} bytes"
            ) from None
        except (web.RequestPayloadError, web.PayloadAccessError, ValueError) as error:
            raise ProblemError(400, f"the body is invalid: {error}"[:300]) from None
        return content

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Call the handler of a request, convert every failure into a problem document, and count the request."""
        response: web.StreamResponse
        try:
            response = await handler(request)
        except ProblemError as error:
            response = problem_response(error.status, error.detail, error.headers, error.extensions)
            if error.status in (408, 413, 429):
                response.force_close()  # the rest of the body is read and ignored first (see create_runner)
        except web.HTTPException as error:
            allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            extensions = {"expected": allowed["Allow"].split(",")} if allowed else {}
            response = problem_response(
                error.status, f"{request.method} {request.path[:80]}: {error.reason}", allowed, extensions
            )
        except ConnectionError:
            raise  # the client disconnected
        except Exception:  # a defect of the agent must fail only one request, not the service
            log.exception("a request failed")
            response = problem_response(500, "internal error of the agent; see its log", {}, {})
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "other"
        self.handler.statistics.count_request(route, request.method, response.status)
        return response


def _content_type(request: web.Request) -> str:
    """Return the media type of a request's body. Raises ProblemError (415) for an unsupported encoding or charset."""
    encoding = request.headers.get("Content-Encoding", "identity")
    charset = request.charset or "utf-8"
    if encoding.strip().lower() != "identity" or charset.lower() not in ("utf-8", "utf8", "us-ascii"):
        raise ProblemError(
            415,
            "the body's encoding is not supported",
            found=f"{encoding}, {charset}"[:80],
            expected="a body without content encoding, with text in UTF-8",
        )
    return request.content_type if "Content-Type" in request.headers else "none"


def create_application(
    engine: Engine,
    statistics: ServiceStatistics,
    config: Config,
    metrics: MetricsExporter,
    capture: Capture | None = None,
) -> web.Application:
    """Create the web application with all routes, to be served on a loopback address or a unix socket.

    Args:
        engine: The engine, which runs the model.
        statistics: The statistics, which count requests, predictions and labels.
        config: The agent's configuration.
        metrics: The exporter of the statistics, which also knows whether the release is healthy.
        capture: The object that stores samples for retraining; None if capturing is off.
    """
    routes = _Routes(PredictionHandler(engine, statistics, config, capture), metrics)
    app = web.Application(middlewares=[routes.guard])
    app.router.add_post("/predict", routes.predict, expect_handler=answer_expect)
    app.router.add_post("/feedback", routes.feedback, expect_handler=answer_expect)
    for path, handler in (
        ("/healthz", routes.healthz),
        ("/readyz", routes.readyz),
        ("/info", routes.info),
        ("/metrics", routes.render_metrics),
        ("/openapi.json", routes.describe),
    ):
        app.router.add_get(path, handler)
    if capture is not None:
        app.router.add_get("/samples", routes.samples)
    return app


def create_metrics_application(
    engine: Engine, statistics: ServiceStatistics, config: Config, metrics: MetricsExporter
) -> web.Application:
    """Create the web application for `serve.metrics_listen`, whose only route is `GET /metrics`.

    Args:
        engine: The engine, which runs the model.
        statistics: The statistics, which count requests, predictions and labels.
        config: The agent's configuration.
        metrics: The exporter of the statistics.
    """
    routes = _Routes(PredictionHandler(engine, statistics, config), metrics)
    app = web.Application(middlewares=[routes.guard])
    app.router.add_get("/metrics", routes.render_metrics)
    return app
