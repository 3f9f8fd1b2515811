"""HTTP connections with a minimum speed. If the headers or body arrive too slowly, the transfer is aborted.

The timeout of a socket limits only the wait for the next byte. With that timeout alone, a server that sends one byte at
a time could keep a download running for days.
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

# If fewer bytes than this arrive within the timeout, the transfer is aborted.
LEAST_BYTES = 1024


class DeadlineWatch:
    """Call `abort` if fewer than LEAST_BYTES bytes arrive in a period of `seconds` seconds.

    The caller reports received bytes with `add`. `slow` is true if the transfer was aborted.
    """

    def __init__(self, abort: Callable[[], None], seconds: float) -> None:
        self.slow = False
        self._abort, self._seconds, self._bytes = abort, seconds, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> DeadlineWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def add(self, number: int) -> None:
        """Count `number` received bytes."""
        self._bytes += number

    def _run(self) -> None:
        previous = 0
        while not self._done.wait(self._seconds):
            if self._bytes - previous < LEAST_BYTES:
                self.slow = True
                with contextlib.suppress(OSError, ValueError):
                    self._abort()
                return
            previous = self._bytes


class _Bounded(HTTPConnection):
    """A connection that aborts a response whose headers do not arrive within the timeout."""

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3's own
        channel, seconds = self.sock, self.timeout
        with DeadlineWatch(lambda: channel.shutdown(socket.SHUT_RDWR), float(seconds or 0) or 60.0):
            return super().getresponse()


class _BoundedTLS(_Bounded, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Bounded


class _PoolTLS(urllib3.HTTPSConnectionPool):
    ConnectionCls = _BoundedTLS


class DeadlinePools:
    """Connection pools, one for each proxy that the environment variables set (`https_proxy`, `no_proxy`)."""

    def __init__(self) -> None:
        self._by_proxy: dict[str | None, urllib3.PoolManager] = {}

    def for_url(self, url: str) -> urllib3.PoolManager:
        """Return the connection pool for `url`. The pool uses the proxy, if any, that the environment variables set."""
        parts = urlsplit(url)
        proxies = request.getproxies()
        proxy = None if request.proxy_bypass(parts.netloc) else proxies.get(parts.scheme, proxies.get("all"))
        if proxy not in self._by_proxy:
            # OpenSSL uses the system's certificates, or those in SSL_CERT_FILE and SSL_CERT_DIR if they are set.
            context = ssl.create_default_context()
            pools = (
                urllib3.ProxyManager(proxy, ssl_context=context) if proxy else urllib3.PoolManager(ssl_context=context)
            )
            pools.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTLS}
            self._by_proxy[proxy] = pools
        return self._by_proxy[proxy]


@contextlib.contextmanager
def watch_body(response: urllib3.BaseHTTPResponse, seconds: float) -> Iterator[DeadlineWatch]:
    """Abort the transfer of a response's body if it is too slow, and close the response after the `with` block."""
    try:
        with DeadlineWatch(response.shutdown, seconds) as watch:
            yield watch
    finally:
        response.close()
