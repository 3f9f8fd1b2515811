"""Connections that end. A socket's timeout only limits the wait for the next byte: a server that drips one byte at a
time would hold a device for days. Here a transfer that brings too little in its time is cut, headers included.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from urllib import request
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

# Less than this within the timeout is silence.
LEAST_BYTES = 1024


class DeadlineWatch:
    """Counts what has come (`add`), and calls `cut` once when a period of `seconds` brought less than LEAST_BYTES."""

    def __init__(self, cut: Callable[[], None], seconds: float) -> None:
        self.slow = False
        self._cut, self._seconds, self._bytes = cut, seconds, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> DeadlineWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def add(self, number: int) -> None:
        self._bytes += number

    def _run(self) -> None:
        seen = 0
        while not self._done.wait(self._seconds):
            if self._bytes - seen < LEAST_BYTES:
                self.slow = True
                with contextlib.suppress(OSError, ValueError):
                    self._cut()
                return
            seen = self._bytes


class _Bounded(HTTPConnection):
    """All of the response's headers within one timeout."""

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3's own
        at, seconds = self.sock, self.timeout
        with DeadlineWatch(lambda: at.shutdown(socket.SHUT_RDWR), float(seconds or 0) or 60.0):
            return super().getresponse()


class _BoundedTLS(_Bounded, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Bounded


class _PoolTLS(urllib3.HTTPSConnectionPool):
    ConnectionCls = _BoundedTLS


class DeadlinePools:
    """Connection pools by proxy, as the environment names it for an address (`https_proxy`, `no_proxy`)."""

    def __init__(self) -> None:
        self._by_proxy: dict[str | None, urllib3.PoolManager] = {}

    def for_url(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxies = request.getproxies()
        proxy = None if request.proxy_bypass(parts.netloc) else proxies.get(parts.scheme, proxies.get("all"))
        if proxy not in self._by_proxy:
            # The system's certificates, or what SSL_CERT_FILE and SSL_CERT_DIR name: OpenSSL's own rule.
            context = ssl.create_default_context()
            pools = (
                urllib3.ProxyManager(proxy, ssl_context=context) if proxy else urllib3.PoolManager(ssl_context=context)
            )
            pools.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTLS}
            self._by_proxy[proxy] = pools
        return self._by_proxy[proxy]


@contextlib.contextmanager
def watch_body(response: urllib3.BaseHTTPResponse, seconds: float) -> Iterator[DeadlineWatch]:
    """A watch over a response's body; afterwards the connection is closed."""
    try:
        with DeadlineWatch(response.shutdown, seconds) as watch:
            yield watch
    finally:
        response.close()
