"""One bundle as one file: the same content gives the same bytes, on every run.

A tar archive (POSIX.1-1988 ustar) of regular files in the order of their names, with mode 0644, no owner and
time zero, in one Zstandard frame (RFC 8878) of a fixed level written by one thread, with its checksum.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path, PurePosixPath

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
            stream = zstandard.ZstdDecompressor().stream_reader(raw)
            _extract(stream, new, limit_bytes, archive)
    except (zstandard.ZstdError, tarfile.TarError, EOFError) as error:
        raise BundleError(
            str(archive), f"not a whole bundle ({error})", "a .tar.zst made by `package`", "fetch or build it again"
        ) from None


def _extract(stream: zstandard.ZstdDecompressionReader, folder: Path, limit_bytes: int, archive: Path) -> None:
    seen, total = set(), 0
    with tarfile.open(fileobj=_Counted(stream, limit_bytes * 2, archive), mode="r|") as tar:
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
                while block := content.read(1 << 20):
                    out.write(block)
            if path.stat().st_size != entry.size:
                raise BundleError(str(archive), f"entry {entry.name!r} ends early", f"{entry.size} bytes")
    while stream.read(1 << 20):  # the frame's checksum is compared at its end
        pass


class _Counted(io.RawIOBase):
    """A stream that ends in an error after `limit` bytes: a small archive must not fill the disk."""

    def __init__(self, stream: zstandard.ZstdDecompressionReader, limit: int, archive: Path) -> None:
        self.stream, self.left, self.archive = stream, limit + (1 << 20), archive

    def read(self, size: int = -1) -> bytes:
        block: bytes = self.stream.read(size)
        self.left -= len(block)
        if self.left < 0:
            raise BundleError(str(self.archive), "more content than a bundle may have", "a smaller bundle")
        return block
