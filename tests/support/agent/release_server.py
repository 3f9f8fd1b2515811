"""A web server for the folder of a repository, which answers correctly or with the faults of servers and networks."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import SSLContext

# A function that sends one response instead of the correct one.
Answer = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    server: ReleaseServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("http://"):  # the form of a request to a proxy
            path = "/" + path.split("/", 3)[3]
        self.server.requests.append((path, dict(self.headers)))
        file = self.server.folder / path.lstrip("/")
        answers = self.server.responses[_kind(path)]
        answer = answers.pop(0) if len(answers) > 1 else (answers[0] if answers else right)
        try:
            answer(self, file.read_bytes() if file.is_file() else self.server.otherwise)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def send(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
        self.server.sent += len(content)

    def log_message(self, *_: object) -> None:
        pass


def _kind(path: str) -> str:
    """Return the kind of a file: `timestamp` for timestamp.json, `digits` for <digest>.digits.tar.zst."""
    parts = path.rpartition("/")[2].split(".")
    return parts[-2 if path.endswith(".json") else 1] if len(parts) > 1 else ""


class ReleaseServer(ThreadingHTTPServer):
    """A server of a folder, with faults.

    `responses[kind]` are the responses to requests for `timestamp`, `root`, `digits` and so on, in order; the last one
    is repeated. `otherwise` is the content of every missing file; empty: it is not found.
    """

    daemon_threads = True

    def __init__(self, folder: Path, tls: SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.sent = folder, 0
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.responses: dict[str, list[Answer]] = defaultdict(list)
        self.otherwise = b""
        self.over = threading.Event()
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://localhost:{self.server_address[1]}"

    def requested(self, kind: str = ".") -> list[str]:
        return [path for path, _ in self.requests if kind in path]

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for path, headers in self.requests if "/targets/" in path]

    def handle_error(self, *_: object) -> None:
        pass  # a client that disconnects, or refuses the certificate


@contextmanager
def serving(folder: Path, tls: SSLContext | None = None) -> Iterator[ReleaseServer]:
    with ReleaseServer(folder, tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


# --- responses


def right(handler: Handler, content: bytes) -> None:
    """Send the correct response (RFC 9110), with ranges under a strong validator."""
    entity = f'"{hash(content) & 0xFFFFFFFF:x}"'
    if not content:
        handler.send(404)
        return
    span = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if span and handler.headers.get("If-Range", entity) == entity:
        start = int(span[1])
        if start >= len(content):
            handler.send(416, Content_Range=f"bytes */{len(content)}")
            return
        handler.send(
            206, content[start:], Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}", ETag=entity
        )
        return
    handler.send(200, content, ETag=entity)


def status(number: int, **headers: str) -> Answer:
    return lambda handler, content: handler.send(number, b"", **headers)


def breaks_off_after(size: int, length: bool = True) -> Answer:
    """Send the first bytes of the correct response, then close the connection."""

    def answer(handler: Handler, content: bytes) -> None:
        span = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(span[1]) if span else 0
        handler.send_response(206 if span else 200)
        if span:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if length:
            handler.send_header("Content-Length", str(len(content) - start))
        handler.send_header("ETag", f'"{hash(content) & 0xFFFFFFFF:x}"')
        handler.end_headers()
        handler.wfile.write(content[start : start + size])
        handler.server.sent += len(content[start : start + size])
        handler.close_connection = True

    return answer


def complete(change: Callable[[bytes], bytes] = bytes) -> Answer:
    """Send the complete content, changed, whatever range was requested."""
    return lambda handler, content: handler.send(200, change(content))


def endless(handler: Handler, content: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while not handler.server.over.is_set():
        handler.wfile.write(content or b"x" * 4096)
        handler.server.sent += len(content or b"x" * 4096)


def drips(handler: Handler, content: bytes) -> None:
    """Send one byte at a time, each within the timeout of a socket."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    drip(handler, content)


def drips_headers(handler: Handler, content: bytes) -> None:
    drip(handler, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"s" * 10_000)


def silent(handler: Handler, content: bytes) -> None:
    handler.server.over.wait()
    handler.close_connection = True


def drip(handler: Handler, content: bytes) -> None:
    handler.close_connection = True
    for byte in content:
        if handler.server.over.wait(0.05):
            return
        handler.wfile.write(bytes([byte]))
