"""Transfer files of the repository of releases from a directory (`file://`) or a server (`http://`, `https://`).

This module does not verify the files; `tuf.ngclient` does that. It ensures that every transfer either completes or ends
with an error that states the reason. An interrupted download is resumed with `Range` and `If-Range` (RFC 9110).
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
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.core.config import Source
from edge_agent.core.fault_points import point
from edge_agent.update import http_messages
from edge_agent.update.http_deadlines import LEAST_BYTES, DeadlinePools, watch_body
from edge_agent.update.partial_download import PartialFile

CHUNK = 1 << 16
LONGEST_PAUSE_S = 300.0
REDIRECTS = 5
# urllib3 follows redirects but never repeats a request, because `Fetcher._fill` alone decides on further attempts.
ONLY_REDIRECTS = urllib3.Retry(
    total=None, connect=0, read=0, status=0, other=0, redirect=REDIRECTS, respect_retry_after_header=False
)

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)


class UnreachableError(DownloadError):
    """Every attempt failed, because the source did not respond or interrupted the transfer.

    `reason` describes the last failure.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"{url}: {reason}")


class _AttemptError(Exception):
    """An attempt to download a file failed, but another attempt may succeed.

    `pause_s` is the pause in seconds that the server requested. `status` is the server's HTTP status, or 0.
    """

    def __init__(self, reason: str, pause_s: float = 0.0, status: int = 0) -> None:
        self.reason, self.pause_s, self.status = reason, pause_s, status
        super().__init__(reason)


class _RestartError(Exception):
    """The server cannot resume the download where the partial file ends, so the download must start again."""


class Fetcher(FetcherInterface):
    """Download files for `tuf.ngclient.Updater`.

    Metadata is kept in memory. A target is written to the partial file that `download_to` sets. The next download
    resumes this file, even in another process. `resumed` is true if the last download resumed a partial file. The
    methods raise subclasses of tuf's DownloadError, and OSError if the disk of this device fails.
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
    def download_to(self, partial: PartialFile, progress: Progress | None = None) -> Iterator[None]:
        """Context manager: downloads inside the `with` block are written to the file `partial`, which a failure keeps.

        After each chunk, `progress` is called with the number of downloaded bytes and the total number.
        """
        self._partial, self._progress, self.resumed = partial, progress, False
        try:
            yield
        finally:
            self._partial, self._progress = None, None

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Yield the content of `url` in chunks. The interface FetcherInterface requires this method."""
        with self.download_file(url, 1 << 62) as content:
            yield from iter(lambda: content.read(CHUNK), b"")

    @contextlib.contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[BinaryIO]:
        """Download at most `max_length` bytes from `url`, and yield a file with the content.

        Raises DownloadError, OSError.
        """
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
        """Download `url` into the file `content`, and repeat failed attempts, up to `source.attempts` failures.

        An attempt that makes progress resets the count of failed attempts.
        """
        failures, reached = 0, content.seek(0, os.SEEK_END)
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
            except _AttemptError as failure:
                if partial is None:
                    content.seek(0)
                    content.truncate()
                present = content.seek(0, os.SEEK_END)
                failures, reached = (1, present) if present > reached + LEAST_BYTES else (failures + 1, reached)
                self.resumed = self.resumed or present > 0
                if failures >= self.source.attempts:
                    reason = f"{failure.reason}, {failures} time(s)"
                    if failure.status:
                        raise DownloadHTTPError(reason, failure.status) from None
                    raise UnreachableError(url, reason) from None
                pause_s = self._pause(failures, failure, url)
                log.warning("%s: %s; next attempt in %.1f s", url, failure.reason, pause_s)
                time.sleep(pause_s)

    def _pause(self, failures: int, failure: _AttemptError, url: str) -> float:
        """Return the pause in seconds before the next attempt, by exponential backoff with random jitter.

        The jitter spreads the requests of a fleet whose devices failed at the same time.
        """
        if failure.pause_s > LONGEST_PAUSE_S:
            raise UnreachableError(url, f"{failure.reason}, and requested a pause of {failure.pause_s:.0f} s")
        backoff_s: float = min(self.source.backoff_s * 2 ** (failures - 1), LONGEST_PAUSE_S)
        return max(failure.pause_s, backoff_s * random.uniform(0.5, 1.0))  # noqa: S311  (not a secret)

    def _attempt(self, url: str, content: BinaryIO, limit: int, partial: PartialFile | None) -> None:
        point("download.before_request")
        offset = content.tell()
        try:
            scheme = urlsplit(url).scheme
        except ValueError as error:
            raise UnreachableError(url, f"not a valid address ({error})") from None
        if scheme == "file":
            chunks: Iterator[bytes] = _from_disk(url, offset)
        else:
            response = self._request(url, offset, partial)
            chunks = self._response_chunks(response, content, limit, partial)
        with contextlib.closing(chunks) as stream:  # type: ignore[type-var]  # a generator
            for chunk in stream:
                point("download.chunk")
                if content.tell() + len(chunk) > limit:
                    raise DownloadLengthMismatchError(f"more than the {limit} bytes allowed")
                content.write(chunk)
                if self._progress:
                    self._progress(content.tell(), limit)

    def _request(self, url: str, offset: int, partial: PartialFile | None) -> urllib3.BaseHTTPResponse:
        headers = {"User-Agent": "edge-agent", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if partial and (validator := partial.read_validator()):
                headers["If-Range"] = validator
        try:
            return self._pools.for_url(url).request(
                "GET",
                url,
                headers=headers,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=self.source.timeout_s, read=self.source.timeout_s),
                retries=ONLY_REDIRECTS,
            )
        except urllib3.exceptions.LocationValueError as error:
            raise UnreachableError(url, f"not a valid address ({error})") from None
        except urllib3.exceptions.HTTPError as error:
            reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
            if isinstance(reason, urllib3.exceptions.ResponseError):
                raise UnreachableError(url, f"more than {REDIRECTS} redirects") from None
            if isinstance(reason, urllib3.exceptions.SSLError):
                # Another attempt would fail too, because the certificate is not valid.
                raise UnreachableError(url, f"TLS failed ({reason})") from None
            raise _AttemptError(http_messages.describe(reason)) from None
        except ValueError as error:  # the deadline watch has aborted a TLS connection
            raise _AttemptError(str(error)) from None

    def _response_chunks(
        self, response: urllib3.BaseHTTPResponse, content: BinaryIO, limit: int, partial: PartialFile | None
    ) -> Iterator[bytes]:
        """Check the status and range of an HTTP response, then yield its body in chunks.

        If the body begins with the first byte of the file, `content` is emptied first.
        """
        status, offset = response.status, content.tell()
        try:
            if status == 429 or status >= 500:
                raise _AttemptError(f"the server answered {status}", http_messages.retry_after_s(response), status)
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
                raise DownloadHTTPError(f"the server answered {status}", status)
            yield from self._body(response)
            sized = response.headers.keys() & {"Content-Length", "Transfer-Encoding"}
            if partial and not sized and content.tell() < limit:
                # A response without a length ends when the connection closes. Only the signed length shows whether it
                # is complete.
                raise _AttemptError(f"the transfer was interrupted {limit - content.tell()} bytes before its end")
        finally:
            response.close()

    def _body(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        expected = response.headers.get("Content-Length", "")
        # Longer numbers are ignored, because Python refuses to convert thousands of digits.
        remaining = int(expected) if re.fullmatch("[0-9]{1,18}", expected) else None
        try:
            with watch_body(response, self.source.timeout_s) as watch:
                while chunk := response.read1(CHUNK):
                    watch.add(len(chunk))
                    remaining = None if remaining is None else remaining - len(chunk)
                    yield chunk
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:  # ValueError: a TLS connection was aborted
            raise _AttemptError(self._slow if watch.slow else http_messages.describe(error)) from None
        if watch.slow:
            raise _AttemptError(self._slow)
        if remaining:
            raise _AttemptError(f"the transfer was interrupted {remaining} bytes before its end")

    @property
    def _slow(self) -> str:
        return f"less than {LEAST_BYTES} bytes in {self.source.timeout_s:g} s"


def _from_disk(url: str, offset: int) -> Iterator[bytes]:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UnreachableError(url, f"a file on the host {parts.netloc!r}; only files on this device can be read")
    path = url2pathname(parts.path)
    try:
        # Without O_NONBLOCK, opening a named pipe would block forever.
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
        raise UnreachableError(url, f"not a valid address ({error})") from None
    except OSError as error:
        raise _AttemptError(error.strerror or str(error)) from None
