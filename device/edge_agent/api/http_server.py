"""The HTTP server under the agent's interface: limits of connections and time, and problems for what is not HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from edge_agent.api.predictions import problem
from edge_agent.core.config import Serve

PROBLEM = "application/problem+json"
CONNECTIONS = 256  # at once, of one socket: with all three that is below the usual limit of 1024 open files
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def problem_response(status: int, detail: str, headers: Mapping[str, str], more: Mapping[str, Any]) -> web.Response:
    """A problem (RFC 9457) as the answer to a request."""
    body = json.dumps(problem(status, detail, more)).encode()
    return web.Response(status=status, body=body, content_type=PROBLEM, headers=dict(headers))


class _OwnFaults(logging.Filter):
    """Lets pass what the service did wrong: what aiohttp refuses as no HTTP must not fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


class _Full(asyncio.Protocol):
    """Answers a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(FULL)
        transport.close()


class _Connection(web.RequestHandler):
    """What is no HTTP, and never becomes a request, is answered with a problem too."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # logs; raises where an answer has begun
        reason = " ".join((message or "").split())[:300]
        answer = problem_response(status, reason or "a defect of the agent; its log says more", {}, {})
        answer.force_close()
        return answer


async def answer_expect(request: web.Request) -> None:
    """RFC 9110, 10.1.1. Comes before `guard`."""
    asked = request.headers.get("Expect", "")
    if asked.lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
    else:
        text = json.dumps(problem(417, "no such expectation is met", {"found": asked[:80], "expected": "100-continue"}))
        raise web.HTTPExpectationFailed(text=text, content_type=PROBLEM)


class _Server(web.Server):
    """Lets in CONNECTIONS at once: more would take the files that the agent itself must open."""

    def __call__(self) -> Any:
        if len(self.connections) >= CONNECTIONS:
            return _Full()
        connection = super().__call__()
        connection.__class__ = _Connection
        return connection


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp has no hook for it
        return server


log = logging.getLogger("edge_agent.web.http")  # the event of its records
log.addFilter(_OwnFaults())


def runner(app: web.Application, serve: Serve) -> web.AppRunner:
    """With the limits of time that `serve` sets: a client that says nothing is cut off, one that is served is not."""
    return _Runner(
        app,
        access_log=None,
        logger=log,
        handle_signals=False,
        keepalive_timeout=serve.request_timeout_s,
        shutdown_timeout=serve.request_timeout_s,
        lingering_time=1.0,
        auto_decompress=False,  # no encoding is read: what a kilobyte unpacks to is not either
    )
