"""Real servers on the loopback interface for tests: HTTP with faults on demand, an MQTT broker, an S3 store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import subprocess
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.requirements import need_program

Query = dict[str, list[str]]
Answer = bytes | Callable[[Query], bytes]


@dataclass(frozen=True)
class Status:
    """Answer with a status and an empty body."""

    code: int


@dataclass(frozen=True)
class Cut:
    """Announce the whole content, send its first `sent` bytes and close the connection."""

    sent: int


@dataclass(frozen=True)
class Stall:
    """Announce the whole content, send its first `sent` bytes and then nothing until the server is closed."""

    sent: int


@dataclass(frozen=True)
class Redirect:
    location: str


Fault = Status | Cut | Stall | Redirect


@dataclass(frozen=True)
class Request:
    """A request that a client sent. Header names are in lower case."""

    path: str
    query: Query
    headers: dict[str, str]


@dataclass
class WebServer:
    """A server with one content per path. A request uses up one fault of `faults[path]`, or succeeds without faults.

    `sent` counts the bytes of content that were sent for each path. Ranges and `If-Range` work as in RFC 9110
    section 13 and 14, with the content's digest as its ETag.
    """

    url: str
    contents: dict[str, tuple[Answer, str]] = field(default_factory=dict)
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    requests: list[Request] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    ranges: bool = True
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    callbacks: dict[str, Callable[[], object]] = field(default_factory=dict)

    def put(self, path: str, content: Answer, content_type: str = "application/octet-stream") -> str:
        """Serve `content` at `path` and return its URL."""
        self.contents[path] = (content, content_type)
        return self.url + path

    def put_json(self, path: str, value: Any) -> str:
        return self.put(path, json.dumps(value).encode(), "application/json")

    def fail(self, path: str, *faults: Fault) -> None:
        """Let the next requests for `path` fail with these faults, one each."""
        self.faults[path].extend(faults)

    def after(self, path: str, call: Callable[[], object]) -> None:
        """Run `call` once, when the next request for `path` has been answered."""
        self.callbacks[path] = call

    def requests_for(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: WebServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.web.requests.append(Request(parts.path, query, headers))
        faults = self.web.faults[parts.path]
        fault = faults.popleft() if faults else None
        if isinstance(fault, Status):
            self._send(fault.code, b"", {})
        elif isinstance(fault, Redirect):
            self._send(302, b"", {"Location": fault.location})
        elif parts.path not in self.web.contents:
            self._send(404, b"", {})
        else:
            content, kind = self.web.contents[parts.path]
            self._content(content if isinstance(content, bytes) else content(query), kind, headers, fault)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _content(self, body: bytes, kind: str, headers: dict[str, str], fault: Fault | None) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        answer = {"Content-Type": kind, "ETag": tag}
        first = headers.get("range", "").removeprefix("bytes=").removesuffix("-")
        same = headers.get("if-range", tag) == tag
        if self.web.ranges and first and same:
            start = int(first)
            if start >= len(body):
                self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                return
            answer["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self._send(206, body[start:], answer, fault)
        else:
            self._send(200, body, answer, fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str], fault: Fault | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(ConnectionError):
            path = urlsplit(self.path).path
            if isinstance(fault, Cut | Stall):
                self.wfile.write(body[: fault.sent])
                self.wfile.flush()
                self.web.sent[path] += min(fault.sent, len(body))
                self.web.callbacks.pop(path, lambda: None)()
                if isinstance(fault, Stall):
                    self.web.closing.wait()
                self.close_connection = True
            else:
                self.web.sent[path] += len(body)
                self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that closes its connection: it is not an error, and must not appear on a test's stderr."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def web_server() -> Iterator[WebServer]:
    """Run an HTTP server on a free port."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        web = WebServer(f"http://127.0.0.1:{server.server_port}")
        server.RequestHandlerClass = type("Handler", (_Handler,), {"web": web})
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield web
        finally:
            web.closing.set()
            server.shutdown()
            thread.join()


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def mqtt_broker(
    folder: Path, users: dict[str, str] | None = None, tls: bool = False, port: int | None = None
) -> Iterator[int]:
    """Run a mosquitto broker for local clients on a free port or on `port`, and yield the port.

    With `tls` it reads certificate.pem and key.pem from `folder`.
    """
    program = need_program("mosquitto", "mosquitto")
    port = port or free_port()
    lines = [f"listener {port} 127.0.0.1", f"allow_anonymous {'false' if users else 'true'}", "persistence false"]
    if users:
        passwords = folder / "passwords"
        passwords.touch(mode=0o600)
        for name, password in users.items():
            subprocess.run(
                [need_program("mosquitto_passwd", "mosquitto"), "-b", str(passwords), name, password],
                check=True,
                capture_output=True,
            )
        lines += [f"password_file {passwords}"]
    if tls:
        lines += [f"certfile {folder}/certificate.pem", f"keyfile {folder}/key.pem"]
    if users or tls:
        # mosquitto drops root's privileges, and could not read files that only root may read
        lines += ["user root"]
    configuration = folder / "mosquitto.conf"
    configuration.write_text("\n".join(lines) + "\n")
    process = subprocess.Popen(
        [program, "-c", str(configuration), "-v"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines_read: list[str] = []
    try:
        for line in process.stderr:
            lines_read.append(line)
            if "running" in line:
                break
        assert process.poll() is None, "".join(lines_read)
        reader = threading.Thread(target=process.stderr.read)  # or a full pipe would stop the broker
        reader.start()
        yield port
        process.terminate()
        reader.join()
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


@contextlib.contextmanager
def s3_store() -> Iterator[str]:
    """Run an S3-compatible store (moto) on a free port and yield its endpoint URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
