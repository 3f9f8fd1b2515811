"""Read data from an HTTP API, which provides either an archive or JSON pages with rows."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urljoin

from stages.collect.sources import decode
from stages.collect.sources.archives import unpack
from stages.collect.sources.base import Context, FetchResult, JsonTableBuilder, Origin, has_surrogate, value_at
from stages.collect.sources.http import download, get_json, headers_from, open_session
from stages.collect.sources.url_secrets import redact
from stages.core.files import sha256
from stages.params.collect import ExternalApi, Pages


async def fetch(source: ExternalApi, context: Context) -> FetchResult:
    """Download and decode the API's archive, or read the rows of all its JSON pages. Raises SourceError."""
    async with open_session(context, headers_from(source.headers_env, context), source.url) as http:
        if source.pages is not None:
            return (await read_pages(http, source.url, source.pages, context)).build(source.pages.columns)
        archive = await download(http, source.url, source.sha256, context)
    assert source.archive is not None
    folder, names, left_out = await asyncio.to_thread(unpack, archive, source.archive, context)
    origin = Origin(redact(source.url), await asyncio.to_thread(sha256, archive), archive.stat().st_size)
    return FetchResult([origin], decode.read_tables(folder, names, source.archive, context), left_out)


async def read_pages(http: Any, url: str, pages: Pages, context: Context) -> JsonTableBuilder:
    """Read the rows of all JSON pages: start at `url`, and follow the link in each page to the next page.

    Args:
        http: The aiohttp session.
        url: URL of the first page.
        pages: The dotted paths inside a page's JSON to its rows, and to the URL of the next page.
        context: Provides the retry settings, and the source's name for error messages.

    Raises:
        SourceError: A page is not valid, or it links back to an earlier page.
    """
    rows = JsonTableBuilder(url, context)
    visited: set[str] = set()
    current: str | None = url
    while current:
        if current in visited:
            raise context.error(
                f"{redact(current)}: the pages link back to it",
                "a last page that has no link to a next page",
                "correct `next:`",
            )
        visited.add(current)
        page = await get_json(http, current, context)
        page_rows = value_at(page, pages.rows)
        if not isinstance(page_rows, list) or not all(isinstance(row, dict) for row in page_rows):
            raise context.error(
                f"{redact(current)}: no list of objects at {pages.rows!r}",
                "a list of JSON objects, one for each row",
                "correct `rows:` or the source",
            )
        await asyncio.to_thread(rows.add, page_rows)
        current = next_page_url(current, page, pages.next, context) if pages.next else None
    return rows


def next_page_url(current: str, page: Any, path: str, context: Context) -> str | None:
    """Return the URL of the next page; None after the last page.

    Args:
        current: URL of the current page. A relative link is resolved against this URL.
        page: The JSON value of the current page.
        path: Dotted path to the link inside the JSON value.
        context: Provides the source's name for error messages.

    Raises:
        SourceError: The link is not a URL.
    """
    link = value_at(page, path)
    if not link:
        return None
    if not isinstance(link, str) or has_surrogate(link):
        problem = f"{redact(current)}: found {ascii(link)[:100]} at {path!r}"
        raise context.error(problem, "the URL of the next page, or null", "correct `next:` or the source")
    return urljoin(current, link)
