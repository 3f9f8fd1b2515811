"""An HTTP API: an archive to download, or rows in pages of JSON."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urljoin

from stages.collect.sources import decode
from stages.collect.sources.archives import unpack
from stages.collect.sources.base import Context, FetchResult, JsonTableBuilder, Origin, has_surrogate, redact, value_at
from stages.collect.sources.http import download, get_json, headers_from, open_session
from stages.core.files import sha256
from stages.params.collect import ExternalApi, Pages


async def fetch(source: ExternalApi, context: Context) -> FetchResult:
    """Raises SourceError."""
    async with open_session(context, headers_from(source.headers_env, context), source.url) as http:
        if source.pages is not None:
            return (await read_pages(http, source.url, source.pages, context)).build(source.pages.columns)
        archive = await download(http, source.url, source.sha256, context)
    assert source.archive is not None
    folder = await asyncio.to_thread(unpack, archive, source.archive, context)
    origin = Origin(redact(source.url), await asyncio.to_thread(sha256, archive), archive.stat().st_size)
    return FetchResult([origin], decode.read_tables(folder, source.archive, context))


async def read_pages(http: Any, url: str, pages: Pages, context: Context) -> JsonTableBuilder:
    """All rows, page after page, until a page names no next one. Raises SourceError."""
    rows = JsonTableBuilder(url, context)
    seen: set[str] = set()
    current: str | None = url
    while current:
        if current in seen:
            raise context.error(f"{redact(current)}: the pages lead back to it", "an end", "mend `next:`")
        seen.add(current)
        page = await get_json(http, current, context)
        found = value_at(page, pages.rows)
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise context.error(
                f"{redact(current)}: no list of objects at {pages.rows!r}", "rows", "mend `rows:` or the source"
            )
        await asyncio.to_thread(rows.add, found)
        current = next_page_url(current, page, pages.next, context) if pages.next else None
    return rows


def next_page_url(current: str, page: Any, path: str, context: Context) -> str | None:
    """The URL of the next page; None where the page names none. Raises SourceError."""
    link = value_at(page, path)
    if not link:
        return None
    if not isinstance(link, str) or has_surrogate(link):
        found = f"{redact(current)}: found {ascii(link)[:100]} at {path!r}"
        raise context.error(found, "the URL of the next page, or null", "mend `next:` or the source")
    return urljoin(current, link)
