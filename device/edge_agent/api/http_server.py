"""The agent's HTTP server: it limits the number and duration of connections, and responds to invalid HTTP requests."""

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
CONNECTIONS = 256  # limit for one listening socket; with three of them, the agent stays below 1024 open files
# Largest read from a connection. By default, asyncio reads 256 KiB from each of the connections that have data, before
# the service counts any of these bytes.
READ_BYTES = 1 << 15
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def problem_response(
    status: int, detail: str, headers: Mapping[str, str], extensions: Mapping[str, Any]
) -> web.Response:
    """Build an HTTP response with a problem document (RFC 9457).

    Args:
        status: HTTP status code.
        detail: The reason why the request failed, as text for people.
        headers: Additional HTTP headers of the response.
        extensions: Additional members of the problem document, such as `found` and `expected`.
    """
    body = json.dumps(problem(status, detail, extensions)).encode()
    return web.Response(status=status, body=body, content_type=PROBLEM, headers=dict(headers))


class _ServiceFaults(logging.Filter):
    """Drop the log records of invalid HTTP requests, so that clients cannot fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


class _RefusedConnection(asyncio.Protocol):
    """Respond with status 503 to a connection that exceeds the maximum number of connections, and close it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(FULL)
        transport.close()


class _Connection(web.RequestHandler):
    """An HTTP connection that responds to invalid HTTP with a problem document (RFC 9457).

    aiohttp calls no handler of a route for invalid HTTP, so `guard` in web.py cannot build this response.
    """

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio has no public setting for this
        super().connection_made(transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(
            request, status, exc, message
        )  # writes to the log, and raises an error if a response has already been started
        reason = " ".join((message or "").split())[:300]
        response = problem_response(status, reason or "internal error of the agent; see its log", {}, {})
        response.force_close()
        return response


async def answer_expect(request: web.Request) -> None:
    """Respond to the request header `Expect` (RFC 9110, 10.1.1).

    aiohttp calls this function before the middleware `guard` in web.py, so this function builds its own problem
    document.
    """
    expectation = request.headers.get("Expect", "")
    if expectation.lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the bytes written so far are not part of the final response
    else:
        extensions = {"found": expectation[:80], "expected": "100-continue"}
        text = json.dumps(problem(417, "the expectation is not supported", extensions))
        raise web.HTTPExpectationFailed(text=text, content_type=PROBLEM)


class _Server(web.Server):
    """Accept at most CONNECTIONS connections at the same time, so that the agent does not run out of open files."""

    def __call__(self) -> Any:
        if len(self.connections) >= CONNECTIONS:
            return _RefusedConnection()
        connection = super().__call__()
        connection.__class__ = _Connection
        return connection


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp has no hook for this
        return server


log = logging.getLogger("edge_agent.web.http")  # the logger's name becomes the event of its log records
log.addFilter(_ServiceFaults())


def create_runner(app: web.Application, serve: Serve) -> web.AppRunner:
    """Create an aiohttp runner for `app`, with the time limits from the configuration block `serve`.

    The server closes the connections of idle clients, but not of active clients. If a response is sent before the whole
    body has arrived, such as status 429, the server reads and ignores the rest of the body before it closes the
    connection. If it closed the connection earlier, the kernel would send a reset, and the client might never read the
    response (RFC 9112, 9.6).
    """
    return _Runner(
        app,
        access_log=None,
        logger=log,
        handle_signals=False,
        keepalive_timeout=serve.request_timeout_s,
        shutdown_timeout=serve.request_timeout_s,
        lingering_time=serve.request_timeout_s,
        auto_decompress=False,  # compressed bodies are refused, because a kilobyte can unpack to gigabytes
    )
