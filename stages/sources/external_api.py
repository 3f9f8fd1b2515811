"""An HTTP API: an archive to download, or rows in pages of JSON."""

from __future__ import annotations

import asyncio
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from stages.files import sha256
from stages.params.collect import ExternalApi, Pages
from stages.sources import decode
from stages.sources.http import download, get_json, headers_from, session
from stages.sources.raw import Context, Origin, Raw, at, of_rows, public


async def fetch(source: ExternalApi, context: Context) -> Raw:
    """Raises SourceError."""
    async with session(context, headers_from(source.headers_env, context)) as http:
        if source.pages is not None:
            rows = await read_pages(http, source.url, source.pages, context)
            return of_rows(rows, source.url, source.pages.columns, context)
        archive = await download(http, source.url, source.sha256, context)
    assert source.archive is not None
    folder = await asyncio.to_thread(unpack, archive, context)
    origin = Origin(public(source.url), await asyncio.to_thread(sha256, archive), archive.stat().st_size)
    return Raw([origin], decode.tables(folder, source.archive, context))


async def read_pages(http: Any, url: str, pages: Pages, context: Context) -> list[dict[str, Any]]:
    """All rows, page after page, until a page names no next one. Raises SourceError."""
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    current: str | None = url
    while current:
        if current in seen:
            raise context.error(f"{public(current)}: the pages lead back to it", "an end", "mend `next:`")
        seen.add(current)
        page = await get_json(http, current, context)
        found = at(page, pages.rows)
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise context.error(
                f"{public(current)}: no list of objects at {pages.rows!r}", "rows", "mend `rows:` or the source"
            )
        rows += found
        link = at(page, pages.next) if pages.next else None
        current = urljoin(current, str(link)) if link else None
    return rows


def unpack(archive: Path, context: Context) -> Path:
    """The members of a tar or zip archive in a folder beside it. Links, devices and paths that lead out are refused."""
    folder = archive.with_suffix(".unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        elif zipfile.is_zipfile(archive):
            _unzip(archive, folder)
        else:
            raise context.error(
                f"{archive.stat().st_size} bytes that are no archive", "a tar or zip file", "mend `url:`"
            )
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise context.error(
            f"the archive cannot be unpacked ({error})", "a whole archive whose members stay inside", "fetch it again"
        ) from None
    return folder


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            path = (folder / member.filename).resolve()
            if not path.is_relative_to(folder.resolve()) or stat.S_ISLNK(member.external_attr >> 16):
                raise ValueError(f"member {member.filename!r} leads out of the archive")
        members.extractall(folder)  # noqa: S202 - every member was looked at above
