"""Make HTTP requests with retries, resume interrupted downloads, and check the content type of responses."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from stages.collect.sources.base import Context
from stages.collect.sources.url_secrets import redact
from stages.core.errors import SourceError

Result = TypeVar("Result")

PAGE_TYPES = ("text/html", "application/xhtml+xml")
TRANSIENT_STATUS = (408, 425, 429)  # for these and every 5xx, another attempt may succeed (RFC 9110)


class TransientError(Exception):
    """A request failed, but may succeed if it is repeated."""


def headers_from(names: dict[str, str] | None, context: Context) -> dict[str, str]:
    """Return request headers with values from environment variables.

    `names` maps the name of each header to the name of its variable. Raises SourceError if a variable is not set.
    """
    missing = [variable for variable in (names or {}).values() if variable not in os.environ]
    if missing:
        raise context.error(
            f"environment variable {', '.join(missing)} is not set",
            "the value of a header (headers_env)",
            "export this variable",
        )
    return {header: os.environ[variable] for header, variable in (names or {}).items()}


def open_session(context: Context, headers: dict[str, str] | None = None, url: str = "") -> aiohttp.ClientSession:
    """Return an HTTP session that limits how long it waits for data, but not the total time of a transfer.

    Args:
        context: Provides the time limit for connecting and for waiting for data.
        headers: Request headers, which can contain secrets. They are sent only to the server (scheme, host and port) of
            `url`, and not to another server to which a redirect or a link leads.
        url: A URL on the server that receives the headers.
    """

    async def add_headers(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if headers and request.url.origin() == URL(url).origin():
            request.headers.update(headers)
        return await send(request)

    timeout = aiohttp.ClientTimeout(
        total=None, connect=context.retry.timeout_s, sock_connect=context.retry.timeout_s,
        sock_read=context.retry.timeout_s,
    )  # fmt: skip
    return aiohttp.ClientSession(timeout=timeout, middlewares=(add_headers,), trust_env=True)


async def with_retries(attempt: Callable[[], Awaitable[Result]], url: str, context: Context) -> Result:
    """Repeat a request until it succeeds, and return its result.

    Args:
        attempt: A function that makes the request once. It is called again after a TransientError, a connection error
            or a timeout.
        url: The URL, for error messages.
        context: Provides the retry settings, and the source's name for error messages.

    Raises:
        SourceError: The last allowed attempt failed, or an attempt failed with a permanent error.
    """
    pause, reason = context.retry.backoff_s, ""
    remedy = "check that the source is running and reachable, then run again (collect.retry sets the time limits)"
    for number in range(context.retry.attempts):
        if number:
            await asyncio.sleep(pause)
            pause *= 2
        try:
            return await attempt()
        except TransientError as error:
            reason = str(error)
        except TimeoutError:
            reason = f"no response for {context.retry.timeout_s:g} s"
        except aiohttp.TooManyRedirects as error:
            reason = f"redirected {len(error.history)} times"
            raise context.error(
                f"{redact(url)}: {reason}", "a response that is not a redirect", "correct the URL or the server"
            ) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            reason = f"{error} is not the URL of a web server"
            raise context.error(
                f"{redact(url)}: {reason}", "a URL with http:// or https:// and a host", "correct `url:`"
            ) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            reason = str(error) or type(error).__name__
    raise context.error(
        f"{redact(url)}: {reason}; {context.retry.attempts} attempt(s)", "a response from the source", remedy
    )


def check_response(response: aiohttp.ClientResponse, url: str, context: Context) -> None:
    """Check the status and the content type of an HTTP response.

    Args:
        response: The response, whose body is not read here.
        url: The URL, for error messages.
        context: Provides the source's name for error messages.

    Raises:
        TransientError: The request failed, but may succeed if it is repeated.
        SourceError: The request failed with a permanent error, or the response is a web page.
    """
    if response.status >= 500 or response.status in TRANSIENT_STATUS:
        raise TransientError(f"HTTP {response.status} {response.reason}")
    if response.status >= 400:
        raise context.error(
            f"{redact(url)}: HTTP {response.status} {response.reason}", "HTTP 200", "correct the URL or the permissions"
        )
    if response.content_type in PAGE_TYPES:
        raise context.error(
            f"{redact(url)}: content type {response.content_type}",
            "a data file",
            "correct the URL or the headers (headers_env); servers answer unauthenticated requests with a login page",
        )


async def get_json(http: aiohttp.ClientSession, url: str, context: Context) -> Any:
    """Return the JSON value at a URL.

    Args:
        http: The aiohttp session.
        url: The URL.
        context: Provides the retry settings, and the source's name for error messages.

    Raises:
        SourceError: The request failed, or the response is not JSON.
    """

    async def attempt() -> Any:
        async with http.get(url) as response:
            check_response(response, url, context)
            try:
                return await response.json(content_type=None)
            except (ValueError, RecursionError) as error:
                raise context.error(
                    f"{redact(url)}: not JSON ({error})", "JSON in UTF-8", "correct the source"
                ) from None

    return await with_retries(attempt, url, context)


async def download(http: aiohttp.ClientSession, url: str, digest: str | None, context: Context) -> Path:
    """Download a file into the source's scratch folder, and return its path.

    An interrupted download is resumed by an HTTP range request (RFC 9110, section 14) if the server confirms that the
    file has not changed (`If-Range`).

    Args:
        http: The aiohttp session.
        url: URL of the file.
        digest: The file's expected SHA-256 in hex, or None. If the folder already has the complete file with this
            digest, the file is not downloaded again. A downloaded file with a different digest is removed.
        context: Provides the retry settings, the scratch folder and the progress reporter.

    Raises:
        SourceError: The download failed, or the digest of the file is not the expected digest.
    """
    context.scratch.mkdir(parents=True, exist_ok=True)
    complete = context.scratch / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.download"
    partial, validator = complete.with_suffix(".partial"), complete.with_suffix(".validator")
    if digest and complete.exists() and await asyncio.to_thread(_digest, complete) == digest:
        return complete
    try:
        await with_retries(lambda: _resume_download(http, url, partial, validator, context), url, context)
    except SourceError as error:
        if partial.exists() and validator.exists():
            error.args = (f"{error}\n  kept:     {partial.stat().st_size} bytes, which the next run continues",)
        raise
    actual = await asyncio.to_thread(_digest, partial)
    if digest and actual != digest:
        partial.unlink()
        raise context.error(
            f"{redact(url)}: the SHA-256 is {actual}",
            digest,
            f"if the new content is intended, set `sha256:` to {actual}",
        )
    partial.replace(complete)
    validator.unlink(missing_ok=True)
    return complete


async def _resume_download(
    http: aiohttp.ClientSession, url: str, partial: Path, validator: Path, context: Context
) -> None:
    size = partial.stat().st_size if partial.exists() and validator.exists() else 0
    # Digests and ranges refer to the bytes as the server stores them, so the transfer must not compress them.
    headers = {"Accept-Encoding": "identity"}
    if size:
        headers |= {"Range": f"bytes={size}-", "If-Range": validator.read_text()}
    async with http.get(url, headers=headers) as response:
        if response.status == 416 and response.headers.get("Content-Range") == f"bytes */{size}":
            return  # the file is complete: the last run was interrupted after the last byte
        if response.status == 416:
            partial.unlink()
            raise TransientError("the stored part is longer than the server's file")
        check_response(response, url, context)
        _keep_validator(response, validator)
        start = _first_byte(response, size, partial)
        remaining = response.content_length
        context.progress.start(context.name, None if remaining is None else start + remaining, start)
        with partial.open("ab" if start else "wb") as stream:
            async for chunk in response.content.iter_chunked(1 << 20):
                stream.write(chunk)
                context.progress.advance(context.name, len(chunk))


def _keep_validator(response: aiohttp.ClientResponse, validator: Path) -> None:
    """Store the response's ETag or Last-Modified header, because a request to resume a download needs one of them."""
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
    if tag and not tag.startswith("W/"):
        validator.write_text(tag)
    else:
        validator.unlink(missing_ok=True)


def _first_byte(response: aiohttp.ClientResponse, size: int, partial: Path) -> int:
    """Return the position in the file of the first byte that the server sends.

    The position is 0 if the server ignores the requested range and sends the complete file.
    """
    if not size or response.status != 206:
        return 0
    if not response.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
        partial.unlink()
        raise TransientError(f"byte {size} was requested, but {response.headers.get('Content-Range')} was received")
    return size


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
