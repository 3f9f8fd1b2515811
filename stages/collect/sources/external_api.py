"""An HTTP API: an archive to download, or rows in pages of JSON."""

from __future__ import annotations

import asyncio
import errno
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urljoin

from stages.collect.sources import decode
from stages.collect.sources.base import Context, Origin, Raw, Rows, at, half, public
from stages.collect.sources.http import download, get_json, headers_from, session
from stages.core.errors import SourceError
from stages.core.files import sha256
from stages.params.collect import ExternalApi, Files, Pages

# What a disk says of names in an archive that cannot be: too long, a file that is a folder too.
NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)


async def fetch(source: ExternalApi, context: Context) -> Raw:
    """Raises SourceError."""
    async with session(context, headers_from(source.headers_env, context), source.url) as http:
        if source.pages is not None:
            return (await read_pages(http, source.url, source.pages, context)).raw(source.pages.columns)
        archive = await download(http, source.url, source.sha256, context)
    assert source.archive is not None
    folder = await asyncio.to_thread(unpack, archive, source.archive, context)
    origin = Origin(public(source.url), await asyncio.to_thread(sha256, archive), archive.stat().st_size)
    return Raw([origin], decode.tables(folder, source.archive, context))


async def read_pages(http: Any, url: str, pages: Pages, context: Context) -> Rows:
    """All rows, page after page, until a page names no next one. Raises SourceError."""
    rows = Rows(url, context)
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
        await asyncio.to_thread(rows.add, found)
        current = following(current, page, pages.next, context) if pages.next else None
    return rows


def following(current: str, page: Any, path: str, context: Context) -> str | None:
    """The URL of the next page; None where the page names none. Raises SourceError."""
    link = at(page, path)
    if not link:
        return None
    if not isinstance(link, str) or half(link):
        found = f"{public(current)}: found {ascii(link)[:100]} at {path!r}"
        raise context.error(found, "the URL of the next page, or null", "mend `next:` or the source")
    return urljoin(current, link)


def unpack(archive: Path, files: Files, context: Context) -> Path:
    """The selected members of a tar or zip archive, in a folder beside it. Raises SourceError.

    Content alone is taken, no owner, mode or link. A member that leads out of the folder spoils the whole archive,
    also when it is not selected.
    """
    folder = archive.with_suffix(".unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    seen: dict[str, None] = {}
    try:
        for name, plain, content in _members(archive, context):
            path = PurePosixPath(name)
            if "__MACOSX" in path.parts or path.name.startswith("._"):
                continue  # what macOS adds to an archive about each of its files
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"member {name!r} leads out of the archive")
            inside = path.as_posix()
            selected = decode.selected(inside, files)
            if selected and not plain:
                raise ValueError(f"member {name!r} is a link or a device")
            if selected and inside in seen:
                raise ValueError(f"member {name!r} is there twice")
            seen[inside] = None
            if selected:
                (folder / inside).parent.mkdir(parents=True, exist_ok=True)
                with content() as packed, (folder / inside).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1 << 20)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno not in NAMES:
            raise  # the disk, not the archive
        raise _refused(str(error), context) from None
    except (NotImplementedError, RuntimeError) as error:  # how zipfile says: packed in an unknown way, encrypted
        raise _refused(str(error), context) from None
    if not seen:
        found = "the archive is empty: it has no file"
        raise context.error(found, "an archive with files", "mend `url:`, or have it packed anew")
    if not any(decode.selected(name, files) for name in seen):
        raise decode.none_selected(list(seen), files, context)
    return folder


def _refused(why: str, context: Context) -> SourceError:
    return context.error(
        f"the archive cannot be unpacked ({why})",
        "a whole archive of plain files that stay inside",
        "fetch it again, or have it packed anew",
    )


def _members(archive: Path, context: Context) -> Iterator[tuple[str, bool, Callable[[], IO[bytes]]]]:
    """Every member that is not a folder: its name, whether it is a plain file, how to read it."""
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                if not member.isdir():
                    yield member.name, member.isreg(), partial(_read_tar, tar, member)
            # tarfile stops at its own end mark; the checksum of what it is packed in comes after that.
            assert tar.fileobj is not None
            while tar.fileobj.read(1 << 20):
                pass
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    kind = stat.S_IFMT(info.external_attr >> 16)
                    yield info.filename, kind in (0, stat.S_IFREG), partial(packed.open, info)
    else:
        raise context.error(f"{archive.stat().st_size} bytes that are no archive", "a tar or zip file", "mend `url:`")


def _read_tar(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    assert stream is not None, "a plain file has content"
    return stream
