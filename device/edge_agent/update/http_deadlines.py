"""HTTP connections with a least speed: a transfer that is too slow is aborted, its headers included.

The timeout of a socket only limits the wait for the next byte: a server that sends one byte at a time could occupy a
device for days.
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

# A transfer of fewer bytes within the timeout is aborted.
LEAST_BYTES = 1024


class DeadlineWatch:
    """A watch over a transfer. It calls `abort` when a period of `seconds` brought fewer than LEAST_BYTES.

    `add` counts received bytes. `slow` is true once the transfer was aborted.
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
    """A connection that receives all headers of a response within one timeout."""

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
    """Connection pools, one for each proxy that the environment sets (`https_proxy`, `no_proxy`)."""

    def __init__(self) -> None:
        self._by_proxy: dict[str | None, urllib3.PoolManager] = {}

    def for_url(self, url: str) -> urllib3.PoolManager:
        """Return the pool for an address."""
        parts = urlsplit(url)
        proxies = request.getproxies()
        proxy = None if request.proxy_bypass(parts.netloc) else proxies.get(parts.scheme, proxies.get("all"))
        if proxy not in self._by_proxy:
            # The system's certificates, or those of SSL_CERT_FILE and SSL_CERT_DIR, as OpenSSL defines.
            context = ssl.create_default_context()
            pools = (
                urllib3.ProxyManager(proxy, ssl_context=context) if proxy else urllib3.PoolManager(ssl_context=context)
            )
            pools.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTLS}
            self._by_proxy[proxy] = pools
        return self._by_proxy[proxy]


@contextlib.contextmanager
def watch_body(response: urllib3.BaseHTTPResponse, seconds: float) -> Iterator[DeadlineWatch]:
    """Watch the transfer of a response's body within the block, then close the connection."""
    try:
        with DeadlineWatch(response.shutdown, seconds) as watch:
            yield watch
    finally:
        response.close()
