"""Archives, tar or zip: the selected members as plain files, nothing else that an archive may hold."""

from __future__ import annotations

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
from typing import IO

from stages.collect.sources import decode
from stages.collect.sources.base import Context
from stages.core.errors import SourceError
from stages.params.files import Files

# What a disk says of names in an archive that cannot be: too long, a file that is a folder too.
PATH_ERRORS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)


def unpack(archive: Path, files: Files, context: Context) -> Path:
    """The selected members of a tar or zip archive, in a folder beside it. Raises SourceError.

    Content alone is taken, no owner, mode or link. A member that leads out of the folder spoils the whole archive,
    also when it is not selected.
    """
    folder = archive.with_suffix(".unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        names = _extract(archive, folder, files, context)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno not in PATH_ERRORS:
            raise  # the disk, not the archive
        raise _unpack_error(str(error), context) from None
    except (NotImplementedError, RuntimeError) as error:  # how zipfile says: packed in an unknown way, encrypted
        raise _unpack_error(str(error), context) from None
    if not names:
        found = "the archive is empty: it has no file"
        raise context.error(found, "an archive with files", "mend `url:`, or have it packed anew")
    if not any(decode.is_selected(name, files) for name in names):
        raise decode.no_match_error(names, files, context)
    return folder


def _extract(archive: Path, folder: Path, files: Files, context: Context) -> list[str]:
    """Write the selected members into `folder`; the paths of all. Raises ValueError for one that cannot be taken."""
    seen: dict[str, None] = {}
    for name, plain, content in _iterate_members(archive, context):
        inside = _member_path(name)
        if inside is None:
            continue
        if decode.is_selected(inside, files):
            if not plain:
                raise ValueError(f"member {name!r} is a link or a device")
            if inside in seen:
                raise ValueError(f"member {name!r} is there twice")
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            with content() as packed, (folder / inside).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
        seen[inside] = None
    return list(seen)


def _member_path(name: str) -> str | None:
    """The path of a member below the folder; None for what macOS adds to an archive about each of its files.

    Raises ValueError where it leads out of the folder.
    """
    path = PurePosixPath(name)
    if "__MACOSX" in path.parts or path.name.startswith("._"):
        return None
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"member {name!r} leads out of the archive")
    return path.as_posix()


def _unpack_error(why: str, context: Context) -> SourceError:
    return context.error(
        f"the archive cannot be unpacked ({why})",
        "a whole archive of plain files that stay inside",
        "fetch it again, or have it packed anew",
    )


def _iterate_members(archive: Path, context: Context) -> Iterator[tuple[str, bool, Callable[[], IO[bytes]]]]:
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
