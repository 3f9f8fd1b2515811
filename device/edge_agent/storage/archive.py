"""Unpack a bundle's archive safely. The archive is a tar file, compressed as one Zstandard frame (RFC 8878)."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

import zstandard

from edge_agent.core.errors import TrustError
from edge_agent.core.fault_points import point

# Unit in bytes in which the file systems of devices allocate disk space.
BLOCK = 4096
# Maximum size in bytes of the file that `inspect` reads into memory. A manifest has a few kilobytes.
MEMBER_LIMIT = 4 << 20
# Maximum number of files in an archive. A bundle has about twenty. Each file takes an inode, and a small memory card
# has few inodes.
MOST_ENTRIES = 4096
# Maximum length of a name in a ustar header. Longer names need extensions of the format, which the pipeline does not
# write.
LONGEST_NAME = 255
# Maximum size in bytes of the headers between two files, because tarfile reads a header of any size into memory.
HEADERS = 1 << 20
# Maximum accepted window of a Zstandard frame, in bytes: the window of the pipeline's archives. An untrusted frame can
# request gigabytes.
WINDOW = 8 << 20
# Exceptions that tarfile and zstandard raise for a corrupted archive.
_MALFORMED = (zstandard.ZstdError, tarfile.TarError, ValueError, LookupError, ArithmeticError, EOFError)


class ArchiveError(TrustError):
    """The archive is incomplete or corrupted, or contains something that a bundle must not contain."""


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`.

    Attributes:
        member: Content of the requested file.
        disk_bytes: Disk space that the unpacked archive needs, in bytes.
    """

    member: bytes
    disk_bytes: int


def inspect(archive: Path, member: str, limit_bytes: int = 1 << 30) -> Inspection:
    """Check a whole archive without unpacking it. Return one file's content and the disk space that unpacking needs.

    Args:
        archive: The path of the archive.
        member: Name of the file to return, such as `manifest.json`.
        limit_bytes: Maximum total size of all files, in bytes.

    Raises:
        ArchiveError: `unpack` would refuse the archive, or the archive does not contain `member`.
        OSError: The archive cannot be read.
    """
    member_content: bytes | None = None
    folders: set[PurePosixPath] = set()
    blocks = 0
    try:
        with archive.open("rb") as raw:
            frame = _frame(raw, archive, limit_bytes)
            for name, size, content in _entries(frame, limit_bytes, archive):
                folders.update(name.parents)
                blocks += -(-size // BLOCK) + 1  # plus one block for the file system's records of the file
                if name == PurePosixPath(member):
                    if size > MEMBER_LIMIT:
                        raise ArchiveError(f"{archive}: {member}", f"{size} bytes", f"at most {MEMBER_LIMIT}")
                    member_content = content.read()
            frame.finish()
    except _MALFORMED as error:
        raise _incomplete(archive, str(error)) from None
    if member_content is None:
        raise ArchiveError(str(archive), f"no {member}", "a bundle that the pipeline packed", "build the bundle again")
    return Inspection(member_content, BLOCK * (blocks + 2 * len(folders)))


def unpack(archive: Path, folder: Path, limit_bytes: int = 1 << 30) -> None:
    """Unpack an archive into a new folder. If this fails, remove the folder.

    Args:
        archive: The path of the archive.
        folder: The folder to create.
        limit_bytes: Maximum total size of all files, in bytes.

    Raises:
        ArchiveError: The archive is incomplete or corrupted, is larger than `limit_bytes`, or contains links, special
            files, too many files, or names that are duplicate, too long or outside the folder.
        OSError: The archive cannot be read, or the folder cannot be written.
    """
    folder.mkdir(parents=True)
    try:
        with archive.open("rb") as raw:
            frame = _frame(raw, archive, limit_bytes)
            for name, _, content in _entries(frame, limit_bytes, archive):
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as out:
                    shutil.copyfileobj(content, out)
                point("install.unpacked_one")
            frame.finish()
    except _MALFORMED as error:
        shutil.rmtree(folder)
        raise _incomplete(archive, str(error)) from None
    except (ArchiveError, OSError):
        shutil.rmtree(folder)
        raise


def _incomplete(archive: Path, reason: str) -> ArchiveError:
    return ArchiveError(
        str(archive),
        f"not a complete bundle ({reason})",
        "a .tar.zst archive that the pipeline packed",
        "download or build the archive again",
    )


def _frame(raw: BinaryIO, archive: Path, limit_bytes: int) -> _Frame:
    # tar adds headers and padding to the files. The whole stream is at most twice as long as the files, plus 1 MiB.
    return _Frame(raw, archive, 2 * limit_bytes + (1 << 20))


def _entries(frame: _Frame, limit_bytes: int, archive: Path) -> Iterator[tuple[PurePosixPath, int, IO[bytes]]]:
    """Yield the name, size and content of each file, in the order of the archive.

    The content of a file can be read only before the next file is requested.
    """
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    total = 0
    with tarfile.open(fileobj=frame, mode="r|") as tar:
        for entry in tar:
            name = PurePosixPath(entry.name)
            if (
                entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE)
                or entry.issparse()
                or not _below(name, entry.name)
            ):
                raise ArchiveError(
                    str(archive), f"entry {entry.name[:LONGEST_NAME]!r}", "only regular files below the bundle's root"
                )
            if name in files:
                raise ArchiveError(str(archive), f"the duplicate entry {entry.name!r}", "a unique name for each file")
            if name in folders or not files.isdisjoint(name.parents):
                raise ArchiveError(
                    str(archive),
                    f"the entry {entry.name!r} as a file and as a folder",
                    "either a file or a folder of this name",
                )
            total += entry.size
            if entry.size < 0 or total > limit_bytes:
                raise ArchiveError(str(archive), f"more than {limit_bytes} bytes of content", "a smaller bundle")
            files.add(name)
            folders.update(name.parents)
            if len(files) > MOST_ENTRIES:
                raise ArchiveError(str(archive), f"more than {MOST_ENTRIES} entries", "fewer files")
            frame.allow(entry.size + HEADERS)
            content = tar.extractfile(entry)
            assert content is not None
            yield name, entry.size, content


def _below(name: PurePosixPath, written: str) -> bool:
    """Return whether the name of an entry is printable, short enough, and inside the bundle's root.

    A name is inside the root if it is relative and has no part `..`.
    """
    return (
        0 < len(written.encode(errors="surrogateescape")) <= LONGEST_NAME
        and written.isprintable()
        and not name.is_absolute()
        and ".." not in name.parts
        and bool(name.parts)
    )


class _Frame(io.RawIOBase):
    """A stream of the decompressed content of one Zstandard frame.

    If the frame is incomplete, reading raises ArchiveError. The zstandard package's own reader is not used, because
    it accepts a frame that ends before its checksum.
    """

    # Compressed bytes that are read in one step. A frame can store a block of 128 KiB in 4 bytes, so one step
    # decompresses to at most 8 MiB in memory.
    STEP = 256

    def __init__(self, raw: BinaryIO, archive: Path, limit: int) -> None:
        self.raw, self.archive, self.remaining, self.allowed = raw, archive, limit, HEADERS
        self.frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        self.ready = bytearray()

    def allow(self, size: int) -> None:
        """Allow the next `size` bytes to be read. Reading more bytes raises ArchiveError."""
        self.allowed = size

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes of the content, or all remaining bytes if `size` is negative."""
        while not self.frame.eof and (size < 0 or len(self.ready) < size):
            step = self.raw.read(self.STEP)
            if not step:
                raise _incomplete(self.archive, "it ends early")
            block = self.frame.decompress(step)
            self.remaining -= len(block)
            if self.remaining < 0:
                raise ArchiveError(str(self.archive), "more content than a bundle may have", "a smaller bundle")
            self.ready += block
        size = len(self.ready) if size < 0 else size
        head = bytes(self.ready[:size])
        del self.ready[:size]
        self.allowed -= len(head)
        if self.allowed < 0:
            raise ArchiveError(str(self.archive), f"more than {HEADERS} bytes of headers", "plain ustar headers")
        return head

    def finish(self) -> None:
        """Read the stream to its end, so that its checksum is verified.

        Raises ArchiveError if further data follows the end of the tar file or of the frame.
        """
        self.allow(HEADERS)
        while padding := self.read(1 << 16):
            if padding.strip(b"\0"):
                raise _incomplete(self.archive, "further data after the end of the tar")
        if self.frame.unused_data or self.raw.read(1):
            raise _incomplete(self.archive, "further data after its end")
