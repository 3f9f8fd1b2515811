"""HTTP with patience: attempts with growing pauses, downloads that go on where they broke off, types checked."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from stages.collect.sources.base import Context, redact
from stages.core.errors import SourceError

Result = TypeVar("Result")

PAGE_TYPES = ("text/html", "application/xhtml+xml")
TRANSIENT_STATUS = (408, 425, 429)  # and every 5xx: worth another attempt (RFC 9110, section 15)


class TransientError(Exception):
    """An attempt failed in a way that another may not."""


def headers_from(names: dict[str, str] | None, context: Context) -> dict[str, str]:
    """Header values out of the environment. Raises SourceError where a variable is not set."""
    missing = [variable for variable in (names or {}).values() if variable not in os.environ]
    if missing:
        raise context.error(
            f"environment variable {', '.join(missing)} is not set", "the value of a header (headers_env)", "export it"
        )
    return {header: os.environ[variable] for header, variable in (names or {}).items()}


def open_session(context: Context, headers: dict[str, str] | None = None, url: str = "") -> aiohttp.ClientSession:
    """A session in which silence, not slowness, is a fault: a large file may take its time.

    `headers` often hold a secret: they go to the host of `url` alone, not where a redirect or a link leads.
    """

    async def add_headers(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if headers and request.url.origin() == URL(url).origin():
            request.headers.update(headers)
        return await send(request)

    patience = aiohttp.ClientTimeout(
        total=None, connect=context.retry.timeout_s, sock_connect=context.retry.timeout_s,
        sock_read=context.retry.timeout_s,
    )  # fmt: skip
    return aiohttp.ClientSession(timeout=patience, middlewares=(add_headers,), trust_env=True)


async def with_retries(attempt: Callable[[], Awaitable[Result]], url: str, context: Context) -> Result:
    """The answer of the first attempt that succeeds. Raises SourceError after the last."""
    pause, why = context.retry.backoff_s, ""
    remedy = "see that the source is up and reachable, then run again (collect.retry sets the patience)"
    for number in range(context.retry.attempts):
        if number:
            await asyncio.sleep(pause)
            pause *= 2
        try:
            return await attempt()
        except TransientError as error:
            why = str(error)
        except TimeoutError:
            why = f"no answer for {context.retry.timeout_s:g} s"
        except aiohttp.TooManyRedirects as error:
            why = f"redirected {len(error.history)} times"
            raise context.error(f"{redact(url)}: {why}", "an answer", "mend the URL or the server") from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            why = f"{error} is no URL of a web server"
            raise context.error(f"{redact(url)}: {why}", "http:// or https:// and a host", "mend `url:`") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            why = str(error) or type(error).__name__
    raise context.error(f"{redact(url)}: {why}; {context.retry.attempts} attempt(s)", "an answer", remedy)


def check_response(answer: aiohttp.ClientResponse, url: str, context: Context) -> None:
    """Raise Broken for a passing failure, SourceError for a lasting one and for a web page."""
    if answer.status >= 500 or answer.status in TRANSIENT_STATUS:
        raise TransientError(f"HTTP {answer.status} {answer.reason}")
    if answer.status >= 400:
        raise context.error(
            f"{redact(url)}: HTTP {answer.status} {answer.reason}", "HTTP 200", "mend the URL or rights"
        )
    if answer.content_type in PAGE_TYPES:
        raise context.error(
            f"{redact(url)}: content type {answer.content_type}",
            "data",
            "a page instead of data is often a login: mend the URL or its headers (headers_env)",
        )


async def get_json(http: aiohttp.ClientSession, url: str, context: Context) -> Any:
    """The JSON value at `url`. Raises SourceError."""

    async def attempt() -> Any:
        async with http.get(url) as answer:
            check_response(answer, url, context)
            try:
                return await answer.json(content_type=None)
            except (ValueError, RecursionError) as error:
                raise context.error(f"{redact(url)}: not JSON ({error})", "JSON in UTF-8", "mend the source") from None

    return await with_retries(attempt, url, context)


async def download(http: aiohttp.ClientSession, url: str, digest: str | None, context: Context) -> Path:
    """The file at `url`, in the source's scratch folder.

    A broken download goes on where it ended, by an HTTP range (RFC 9110, section 14), as long as the server
    says that the file is still the same (`If-Range`). With a known `digest` a file that is already there is
    taken as it is, and one that differs is removed. Raises SourceError.
    """
    context.scratch.mkdir(parents=True, exist_ok=True)
    whole = context.scratch / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.download"
    partial, validator = whole.with_suffix(".partial"), whole.with_suffix(".validator")
    if digest and whole.exists() and await asyncio.to_thread(_digest, whole) == digest:
        return whole
    try:
        await with_retries(lambda: _resume_download(http, url, partial, validator, context), url, context)
    except SourceError as error:
        if partial.exists() and validator.exists():
            error.args = (f"{error}\n  kept:     {partial.stat().st_size} bytes, from which the next run goes on",)
        raise
    found = await asyncio.to_thread(_digest, partial)
    if digest and found != digest:
        partial.unlink()
        raise context.error(
            f"{redact(url)}: SHA-256 {found}", digest, "if the new content is wanted, write its digest (sha256)"
        )
    partial.replace(whole)
    validator.unlink(missing_ok=True)
    return whole


async def _resume_download(
    http: aiohttp.ClientSession, url: str, partial: Path, validator: Path, context: Context
) -> None:
    have = partial.stat().st_size if partial.exists() and validator.exists() else 0
    # Digests and ranges are of the bytes as they lie on the server, so nothing may be packed on the way.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator.read_text()}
    async with http.get(url, headers=headers) as answer:
        if answer.status == 416 and answer.headers.get("Content-Range") == f"bytes */{have}":
            return  # all of it is here: the last run ended after its last byte
        if answer.status == 416:
            partial.unlink()
            raise TransientError("the part that is here is not a part of the file any more")
        check_response(answer, url, context)
        _keep_validator(answer, validator)
        start = _first_byte(answer, have, partial)
        rest = answer.content_length
        context.progress.start(context.name, None if rest is None else start + rest, start)
        with partial.open("ab" if start else "wb") as stream:
            async for chunk in answer.content.iter_chunked(1 << 20):
                stream.write(chunk)
                context.progress.advance(context.name, len(chunk))


def _keep_validator(answer: aiohttp.ClientResponse, validator: Path) -> None:
    """Keep what names this very state of the file, if the server does: without it no download goes on."""
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    if tag and not tag.startswith("W/"):
        validator.write_text(tag)
    else:
        validator.unlink(missing_ok=True)


def _first_byte(answer: aiohttp.ClientResponse, have: int, partial: Path) -> int:
    """The byte that the answer begins with: 0 where the server sends all of the file, whatever was asked for."""
    if not have or answer.status != 206:
        return 0
    if not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        partial.unlink()
        raise TransientError(f"byte {have} was asked for and {answer.headers.get('Content-Range')} came")
    return have


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
