"""A bundle's archive, unpacked with suspicion: one Zstandard frame (RFC 8878) around a tar of regular files."""

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

# What a file system gives out at a time, on anything that a device boots from.
BLOCK = 4096
# The one file that is read into memory; a manifest has a few kilobytes.
WANTED_LIMIT = 4 << 20
# A bundle has some twenty files; each takes an inode, of which a small card has few.
MOST_ENTRIES = 4096
# What a ustar header holds. Longer names need extensions of the format, which the pipeline does not write.
LONGEST_NAME = 255
# Headers between two contents: tarfile reads an extended one into memory, however large it says that it is.
HEADERS = 1 << 20
# Zstandard's own window at the pipeline's level; a frame may ask for gigabytes.
WINDOW = 8 << 20
# What tarfile raises for headers that nobody wrote, beside TarError.
_MALFORMED = (zstandard.ZstdError, tarfile.TarError, ValueError, LookupError, ArithmeticError, EOFError)


class ArchiveError(TrustError):
    """What was signed is not an archive that the agent unpacks."""


@dataclass(frozen=True)
class Inspection:
    """One file's content, and the disk space that the whole archive takes when it is unpacked."""

    member: bytes
    disk_bytes: int


def inspect(archive: Path, wanted: str, limit_bytes: int = 1 << 30) -> Inspection:
    """Read a whole archive without writing anything. Refuses what `unpack` refuses, and an archive without `wanted`.

    Raises ArchiveError, OSError.
    """
    found: bytes | None = None
    folders: set[PurePosixPath] = set()
    blocks = 0
    try:
        with archive.open("rb") as raw:
            frame = _frame(raw, archive, limit_bytes)
            for name, size, content in _entries(frame, limit_bytes, archive):
                folders.update(name.parents)
                blocks += -(-size // BLOCK) + 1  # and one for what the file system notes about it
                if name == PurePosixPath(wanted):
                    if size > WANTED_LIMIT:
                        raise ArchiveError(f"{archive}: {wanted}", f"{size} bytes", f"at most {WANTED_LIMIT}")
                    found = content.read()
            frame.finish()
    except _MALFORMED as error:
        raise _not_whole(archive, str(error)) from None
    if found is None:
        raise ArchiveError(str(archive), f"no {wanted}", "a bundle that the pipeline packed", "build it again")
    return Inspection(found, BLOCK * (blocks + 2 * len(folders)))


def unpack(archive: Path, folder: Path, limit_bytes: int = 1 << 30) -> None:
    """Unpack into the new folder `folder`, which is removed again where the archive is refused.

    Refuses names that leave the folder, links, special files, a name twice or as file and folder, too many or too
    long names, and more than `limit_bytes` of content.
    Raises ArchiveError, OSError.
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
        raise _not_whole(archive, str(error)) from None
    except (ArchiveError, OSError):
        shutil.rmtree(folder)
        raise


def _not_whole(archive: Path, why: str) -> ArchiveError:
    return ArchiveError(
        str(archive), f"not a whole bundle ({why})", "a .tar.zst that the pipeline packed", "fetch or build it again"
    )


def _frame(raw: BinaryIO, archive: Path, limit_bytes: int) -> _Frame:
    # tar pads its entries: what it reads is more than their content, never twice as much plus a little.
    return _Frame(raw, archive, 2 * limit_bytes + (1 << 20))


def _entries(frame: _Frame, limit_bytes: int, archive: Path) -> Iterator[tuple[PurePosixPath, int, IO[bytes]]]:
    """Name, size and content of each file, in their order; a content is read before the next one is asked for."""
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
                    str(archive), f"entry {entry.name[:LONGEST_NAME]!r}", "regular files below the bundle's root"
                )
            if name in files:
                raise ArchiveError(str(archive), f"entry {entry.name!r} twice", "every name once")
            if name in folders or not files.isdisjoint(name.parents):
                raise ArchiveError(str(archive), f"entry {entry.name!r} as file and as folder", "one of them")
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
    """A plain name below the bundle's root: printable, as short as a header holds, with nothing that is normalized."""
    return (
        0 < len(written.encode(errors="surrogateescape")) <= LONGEST_NAME
        and written.isprintable()
        and not name.is_absolute()
        and ".." not in name.parts
        and bool(name.parts)
    )


class _Frame(io.RawIOBase):
    """The content of one Zstandard frame, which must end as it should: zstandard's own reader takes a file that
    ends early, without the checksum, for a whole one.
    """

    # A block of 128 KiB can be stored in 4 bytes: a step of this size never becomes more than 8 MiB in memory.
    STEP = 256

    def __init__(self, raw: BinaryIO, archive: Path, limit: int) -> None:
        self.raw, self.archive, self.left, self.allowed = raw, archive, limit, HEADERS
        self.frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        self.ready = bytearray()

    def allow(self, size: int) -> None:
        """So many bytes from here on, until the next entry is known."""
        self.allowed = size

    def read(self, size: int = -1) -> bytes:
        while not self.frame.eof and (size < 0 or len(self.ready) < size):
            step = self.raw.read(self.STEP)
            if not step:
                raise _not_whole(self.archive, "it ends early")
            block = self.frame.decompress(step)
            self.left -= len(block)
            if self.left < 0:
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
        """Read to the end, where the checksum is compared; nothing may follow."""
        self.allow(HEADERS)
        while rest := self.read(1 << 16):
            if rest.strip(b"\0"):
                raise _not_whole(self.archive, "something follows the end of the tar")
        if self.frame.unused_data or self.raw.read(1):
            raise _not_whole(self.archive, "something follows its end")
