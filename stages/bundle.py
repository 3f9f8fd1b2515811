"""One bundle as one file: the same content gives the same bytes, on every run.

A tar archive (POSIX.1-1988 ustar) of regular files in the order of their names, with mode 0644, no owner and
time zero, in one Zstandard frame (RFC 8878) of a fixed level written by one thread, with its checksum.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import zstandard

from stages.errors import StageError
from stages.files import new_directory

LEVEL = 19
MODE = 0o644


class BundleError(StageError):
    """A bundle cannot be written, or what is read is not one."""


def pack(folder: Path, archive: Path) -> None:
    """Write every file below `folder` into `archive`; an archive that was there is replaced at the end, whole.

    Raises BundleError for anything but regular files and folders, OSError.
    """
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if not path.is_dir())
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f".{archive.name}.partial")
    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=0, write_checksum=True)
    try:
        with partial.open("wb") as raw:
            with (
                compressor.stream_writer(raw, closefd=False) as stream,
                tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
            ):
                for name, path in files:
                    if path.is_symlink() or not path.is_file():
                        raise BundleError(str(path), "a link or special file", "regular files only")
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = path.stat().st_size, MODE
                    with path.open("rb") as content:
                        tar.addfile(entry, content)
            raw.flush()
            os.fsync(raw.fileno())
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path, limit_bytes: int = 1 << 30) -> None:
    """Unpack into `folder`, which appears whole or not at all.

    Refuses names that leave the folder, links, special files, a name twice and more than `limit_bytes` of content.
    Raises BundleError, OSError.
    """
    try:
        with archive.open("rb") as raw, new_directory(folder) as new:
            # tar pads its entries: what it reads is more than their content, never twice as much plus a little.
            frame = _Frame(raw, archive, 2 * limit_bytes + (1 << 20))
            _extract(frame, new, limit_bytes, archive)
            frame.finish()
    except (zstandard.ZstdError, tarfile.TarError) as error:
        raise _not_whole(archive, str(error)) from None


def _not_whole(archive: Path, why: str) -> BundleError:
    return BundleError(
        str(archive), f"not a whole bundle ({why})", "a .tar.zst made by `package`", "fetch or build it again"
    )


def _extract(frame: _Frame, folder: Path, limit_bytes: int, archive: Path) -> None:
    seen, total = set(), 0
    with tarfile.open(fileobj=frame, mode="r|") as tar:
        for entry in tar:
            name = PurePosixPath(entry.name)
            if not entry.isreg() or name.is_absolute() or ".." in name.parts or not name.parts:
                raise BundleError(str(archive), f"entry {entry.name!r}", "regular files below the bundle's root")
            if name in seen:
                raise BundleError(str(archive), f"entry {entry.name!r} twice", "every name once")
            total += entry.size
            if total > limit_bytes:
                raise BundleError(str(archive), f"more than {limit_bytes} bytes of content", "a smaller bundle")
            seen.add(name)
            content = tar.extractfile(entry)
            assert content is not None
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:
                shutil.copyfileobj(content, out)


class _Frame(io.RawIOBase):
    """The content of one Zstandard frame, which must end as it should: zstandard's own reader takes a file that
    ends early, without the checksum, for a whole one.
    """

    # A block of 128 KiB can be stored in 4 bytes: a step of this size never holds more than 16 MiB in memory.
    STEP = 512

    def __init__(self, raw: BinaryIO, archive: Path, limit: int) -> None:
        self.raw, self.archive, self.left = raw, archive, limit
        self.frame = zstandard.ZstdDecompressor().decompressobj()
        self.ready = bytearray()

    def read(self, size: int = -1) -> bytes:
        while not self.frame.eof and (size < 0 or len(self.ready) < size):
            step = self.raw.read(self.STEP)
            if not step:
                raise _not_whole(self.archive, "it ends early")
            block = self.frame.decompress(step)
            self.left -= len(block)
            if self.left < 0:
                raise BundleError(str(self.archive), "more content than a bundle may have", "a smaller bundle")
            self.ready += block
        size = len(self.ready) if size < 0 else size
        head = bytes(self.ready[:size])
        del self.ready[:size]
        return head

    def finish(self) -> None:
        """Read to the end, where the checksum is compared; nothing may follow."""
        while self.read(1 << 20):
            pass
        if self.frame.unused_data or self.raw.read(1):
            raise _not_whole(self.archive, "something follows its end")
