"""Extract selected regular files from tar and zip archives.

The files' owners and permissions are not restored. A selected member that is a link or a device is an error.
"""

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

from stages.collect.sources.base import Context, LeftOut
from stages.collect.sources.selection import reason_left_out, select_files
from stages.core.errors import SourceError
from stages.params.files import Files

# Errors of the file system for a path that it cannot store: a name is too long, or a file has the name of a folder.
PATH_ERRORS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)


def unpack(archive: Path, files: Files, context: Context) -> tuple[Path, list[str], list[LeftOut]]:
    """Extract the selected members of an archive into a folder next to it.

    If the path of any member leads out of the folder, the archive is invalid, even if that member is not selected.

    Args:
        archive: A tar or zip file.
        files: The patterns that select members.
        context: Provides the source's name for error messages.

    Returns:
        The folder with the extracted files, the names of these files, and a record of all other members.

    Raises:
        SourceError: The archive is not valid, or contains no selected member.
    """
    folder = archive.with_suffix(".unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        names = _extract(archive, folder, files, context)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno not in PATH_ERRORS:
            raise  # the cause is the disk, not the archive
        raise _unpack_error(str(error), context) from None
    except (NotImplementedError, RuntimeError) as error:  # the archive is encrypted, or its compression is unknown
        raise _unpack_error(str(error), context) from None
    if not names:
        remedy = "correct `url:`, or create the archive again"
        raise context.error("the archive contains no files", "an archive that contains files", remedy)
    return folder, *select_files(names, files, context)


def _extract(archive: Path, folder: Path, files: Files, context: Context) -> list[str]:
    """Write the selected members into `folder`, and return the paths of all members.

    Raises ValueError if a selected member is not a regular file or occurs twice, or if a path leads out of the folder.
    """
    paths: dict[str, None] = {}
    for name, is_file, content in _iterate_members(archive, context):
        inside = _member_path(name)
        if reason_left_out(inside, files) is None:
            if not is_file:
                raise ValueError(f"member {name!r} is a link or a device")
            if (folder / inside).exists():  # also on a file system that does not distinguish upper and lower case
                raise ValueError(f"member {name!r} is a duplicate")
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            with content() as packed, (folder / inside).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
        paths[inside] = None
    return list(paths)


def _member_path(name: str) -> str:
    """Return the path that the member `name` gets in the folder. Raises ValueError if it leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"member {name!r} leads out of the archive")
    return path.as_posix()


def _unpack_error(reason: str, context: Context) -> SourceError:
    return context.error(
        f"the archive cannot be unpacked ({reason})",
        "a complete archive, in which every selected member is a regular file and no path leads out of the archive",
        "download the archive again, or create it again",
    )


def _iterate_members(archive: Path, context: Context) -> Iterator[tuple[str, bool, Callable[[], IO[bytes]]]]:
    """For each member that is not a folder, yield its name, whether it is a regular file, and a function to open it."""
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                if not member.isdir():
                    yield member.name, member.isreg(), partial(_read_tar, tar, member)
            # tarfile stops at the end-of-archive mark. The compressed stream has its checksum after the mark, so read
            # the stream to its end.
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
        raise context.error(
            f"{archive.stat().st_size} bytes were downloaded, but they are not an archive",
            "a tar or zip archive",
            "set `url:` to a tar or zip archive",
        )


def _read_tar(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    assert stream is not None, "a regular file has content"
    return stream
