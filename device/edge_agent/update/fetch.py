"""Files of the repository of releases, from a directory (`file://`) or a server (`http://`, `https://`).

Nothing that is fetched here is believed: `tuf.ngclient` verifies it. What this module sees to is that a transfer ends:
complete, or with a reason. HTTP as in RFC 9110: a broken download goes on with `Range` under `If-Range`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import re
import stat
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.core.config import Source
from edge_agent.core.fault_points import point
from edge_agent.update.http_deadlines import LEAST_BYTES, DeadlinePools, watch_body
from edge_agent.update.partial_download import PartialFile

CHUNK = 1 << 16
LONGEST_PAUSE_S = 300.0
REDIRECTS = 5

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)


class UnreachableError(DownloadError):
    """The source did not answer, or broke off, as often as was tried. `found`: how."""

    def __init__(self, url: str, found: str) -> None:
        self.url, self.found = url, found
        super().__init__(f"{url}: {found}")


class _BrokenError(Exception):
    """This attempt failed; the next one may not. `pause_s`: what the server asks for."""

    def __init__(self, found: str, pause_s: float = 0.0, status: int = 0) -> None:
        self.found, self.pause_s, self.status = found, pause_s, status
        super().__init__(found)


class _RestartError(Exception):
    """The server cannot go on where the partial file ends: from zero, at once."""


class Fetcher(FetcherInterface):
    """What `tuf.ngclient.Updater` fetches with.

    Metadata is held in memory. A target goes to the partial file that `keep` names, and goes on there, also in
    another process; `resumed` says whether the last one did. Raises tuf's DownloadError family, and OSError where
    the disk on this side fails.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.documents: dict[str, bytes] = {}
        self.url = ""
        self.resumed = False
        self._partial: PartialFile | None = None
        self._progress: Progress | None = None
        self._pools = DeadlinePools()

    @contextlib.contextmanager
    def keep(self, partial: PartialFile, progress: Progress | None = None) -> Iterator[None]:
        """Within, downloads go to `partial`, which stays when they fail. `progress(bytes, of)` after each chunk."""
        self._partial, self._progress, self.resumed = partial, progress, False
        try:
            yield
        finally:
            self._partial, self._progress = None, None

    def _fetch(self, url: str) -> Iterator[bytes]:
        """The interface's minimum: the content of `url` in chunks."""
        with self.download_file(url, 1 << 62) as content:
            yield from iter(lambda: content.read(CHUNK), b"")

    @contextlib.contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[BinaryIO]:
        """The content of `url`, at most `max_length` bytes. Raises DownloadError and its kinds, OSError."""
        self.url = url
        if self._partial is None:
            memory = io.BytesIO()
            self._fill(url, memory, max_length, None)
            self.documents[url.rpartition("/")[2]] = memory.getvalue()
            memory.seek(0)
            yield memory
            return
        path = self._partial.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as content:
            self._fill(url, content, max_length, self._partial)
            point("download.before_fsync")
            content.flush()
            os.fsync(content.fileno())
            content.seek(0)
            yield content

    def _fill(self, url: str, content: BinaryIO, limit: int, partial: PartialFile | None) -> None:
        """Append to `content` until the source has no more. Attempts count from the last progress on."""
        failed, reached = 0, content.seek(0, os.SEEK_END)
        self.resumed = self.resumed or reached > 0
        if reached > limit:
            content.truncate(0)
        while partial is None or content.seek(0, os.SEEK_END) < limit or limit == 0:
            try:
                self._attempt(url, content, limit, partial)
                return
            except _RestartError:
                content.truncate(0)
                continue
            except _BrokenError as broken:
                if partial is None:
                    content.seek(0)
                    content.truncate()
                have = content.seek(0, os.SEEK_END)
                failed, reached = (1, have) if have > reached + LEAST_BYTES else (failed + 1, reached)
                self.resumed = self.resumed or have > 0
                if failed >= self.source.attempts:
                    if broken.status:
                        raise DownloadHTTPError(f"{broken.found}, {failed} time(s)", broken.status) from None
                    raise UnreachableError(url, f"{broken.found}, {failed} time(s)") from None
                pause_s = self._pause(failed, broken, url)
                log.warning("%s: %s; again in %.1f s", url, broken.found, pause_s)
                time.sleep(pause_s)

    def _pause(self, failed: int, broken: _BrokenError, url: str) -> float:
        """Twice as long each time, and never the same for two devices, so that a fleet does not come back at once."""
        if broken.pause_s > LONGEST_PAUSE_S:
            raise UnreachableError(url, f"{broken.found}, and asks for {broken.pause_s:.0f} s of patience")
        backoff_s: float = min(self.source.backoff_s * 2 ** (failed - 1), LONGEST_PAUSE_S)
        return max(broken.pause_s, backoff_s * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)

    def _attempt(self, url: str, content: BinaryIO, limit: int, partial: PartialFile | None) -> None:
        point("download.before_request")
        offset = content.tell()
        try:
            scheme = urlsplit(url).scheme
        except ValueError as error:
            raise UnreachableError(url, f"not an address ({error})") from None
        if scheme == "file":
            chunks: Iterator[bytes] = _from_disk(url, offset)
        else:
            response = self._ask(url, offset, partial)
            chunks = self._answer(response, content, limit, partial)
        with contextlib.closing(chunks) as stream:  # type: ignore[type-var]  # a generator
            for chunk in stream:
                point("download.chunk")
                if content.tell() + len(chunk) > limit:
                    raise DownloadLengthMismatchError(f"more than the {limit} bytes that it may have")
                content.write(chunk)
                if self._progress:
                    self._progress(content.tell(), limit)

    def _ask(self, url: str, offset: int, partial: PartialFile | None) -> urllib3.BaseHTTPResponse:
        headers = {"User-Agent": "edge-agent", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if partial and (known := partial.read_validator()):
                headers["If-Range"] = known
        try:
            return self._pools.for_url(url).request(
                "GET",
                url,
                headers=headers,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=self.source.timeout_s, read=self.source.timeout_s),
                # Only redirects are urllib3's; what is tried again, and when, is decided in one place.
                retries=urllib3.Retry(
                    total=None,
                    connect=0,
                    read=0,
                    status=0,
                    other=0,
                    redirect=REDIRECTS,
                    respect_retry_after_header=False,
                ),
            )
        except urllib3.exceptions.LocationValueError as error:
            raise UnreachableError(url, f"not an address ({error})") from None
        except urllib3.exceptions.HTTPError as error:
            reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
            if isinstance(reason, urllib3.exceptions.ResponseError):
                raise UnreachableError(url, f"more than {REDIRECTS} redirects") from None
            if isinstance(reason, urllib3.exceptions.SSLError):
                # A certificate does not become valid by asking again.
                raise UnreachableError(url, f"TLS failed ({reason})") from None
            raise _BrokenError(_short(reason)) from None
        except ValueError as error:  # TLS that the watch cut
            raise _BrokenError(str(error)) from None

    def _answer(
        self, response: urllib3.BaseHTTPResponse, content: BinaryIO, limit: int, partial: PartialFile | None
    ) -> Iterator[bytes]:
        """Check the status and the range, then give the body. `content` is emptied where it starts from zero."""
        status, offset = response.status, content.tell()
        try:
            if status == 429 or status >= 500:
                raise _BrokenError(f"the server answers {status}", _retry_after(response), status)
            if status == 416 and offset:
                raise _RestartError
            if status == 206 and offset:
                span = re.fullmatch(
                    r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", response.headers.get("Content-Range", "")
                )
                if span is None or int(span[1]) != offset:
                    raise _RestartError
            elif status == 200:
                content.truncate(0)
                content.seek(0)
                if partial:
                    partial.write_validator(response)
            else:
                raise DownloadHTTPError(f"the server answers {status}", status)
            yield from self._body(response)
            if (
                partial
                and content.tell() < limit
                and not response.headers.keys() & {"Content-Length", "Transfer-Encoding"}
            ):
                # Such an answer ends with its connection: only the signed length tells whether that was meant.
                raise _BrokenError(f"broke off, {limit - content.tell()} bytes before its end")
        finally:
            response.close()

    def _body(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        expected = response.headers.get("Content-Length", "")
        left = int(expected) if re.fullmatch("[0-9]{1,18}", expected) else None  # Python refuses thousands of digits
        try:
            with watch_body(response, self.source.timeout_s) as watch:
                while chunk := response.read1(CHUNK):
                    watch.add(len(chunk))
                    left = None if left is None else left - len(chunk)
                    yield chunk
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:  # ValueError: TLS that the watch cut
            raise _BrokenError(self._slow if watch.slow else _short(error)) from None
        if watch.slow:
            raise _BrokenError(self._slow)
        if left:
            raise _BrokenError(f"broke off, {left} bytes before its end")

    @property
    def _slow(self) -> str:
        return f"less than {LEAST_BYTES} bytes in {self.source.timeout_s:g} s"


def _from_disk(url: str, offset: int) -> Iterator[bytes]:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UnreachableError(url, f"a file of the host {parts.netloc!r}, where only files of this device can be read")
    path = url2pathname(parts.path)
    try:
        # A named pipe on a stick would make `open` wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnreachableError(url, "not a regular file")
            stream.seek(offset)
            yield from iter(lambda: stream.read(CHUNK), b"")
    except (FileNotFoundError, NotADirectoryError):
        raise DownloadHTTPError("no such file", 404) from None
    except PermissionError as error:
        raise UnreachableError(url, f"{error.strerror}") from None
    except ValueError as error:  # %00
        raise UnreachableError(url, f"not an address ({error})") from None
    except OSError as error:
        raise _BrokenError(error.strerror or str(error)) from None


def _short(error: BaseException | None) -> str:
    """What urllib3 says, without the objects that it shows."""
    first = error.args[0] if isinstance(error, urllib3.exceptions.ProtocolError) and error.args else error
    return re.sub(r"^\w+\([^()]*\): |^<[^>]*>:? ?", "", str(first)) or type(error).__name__


def _retry_after(response: urllib3.BaseHTTPResponse) -> float:
    """Seconds to wait as the server asks for (RFC 9110, 10.2.3): a number, or a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
