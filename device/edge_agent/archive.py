"""A bundle's archive, unpacked with suspicion: one Zstandard frame (RFC 8878) around a tar of regular files."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import zstandard

from edge_agent.errors import TrustError
from edge_agent.faults import point


class ArchiveError(TrustError):
    """What was signed is not an archive that the agent unpacks."""


def unpack(archive: Path, folder: Path, limit_bytes: int = 1 << 30) -> None:
    """Unpack into the new folder `folder`, which is removed again where the archive is refused.

    Refuses names that leave the folder, links, special files, a name twice and more than `limit_bytes` of content.
    Raises ArchiveError, OSError.
    """
    folder.mkdir(parents=True)
    try:
        with archive.open("rb") as raw:
            # tar pads its entries: what it reads is more than their content, never twice as much plus a little.
            frame = _Frame(raw, archive, 2 * limit_bytes + (1 << 20))
            _extract(frame, folder, limit_bytes, archive)
            frame.finish()
    except (zstandard.ZstdError, tarfile.TarError) as error:
        shutil.rmtree(folder)
        raise _not_whole(archive, str(error)) from None
    except (ArchiveError, OSError):
        shutil.rmtree(folder)
        raise


def _not_whole(archive: Path, why: str) -> ArchiveError:
    return ArchiveError(
        str(archive), f"not a whole bundle ({why})", "a .tar.zst that the pipeline packed", "fetch or build it again"
    )


def _extract(frame: _Frame, folder: Path, limit_bytes: int, archive: Path) -> None:
    seen, total = set(), 0
    with tarfile.open(fileobj=frame, mode="r|") as tar:
        for entry in tar:
            name = PurePosixPath(entry.name)
            if not entry.isreg() or name.is_absolute() or ".." in name.parts or not name.parts:
                raise ArchiveError(str(archive), f"entry {entry.name!r}", "regular files below the bundle's root")
            if name in seen:
                raise ArchiveError(str(archive), f"entry {entry.name!r} twice", "every name once")
            total += entry.size
            if total > limit_bytes:
                raise ArchiveError(str(archive), f"more than {limit_bytes} bytes of content", "a smaller bundle")
            seen.add(name)
            content = tar.extractfile(entry)
            assert content is not None
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:
                shutil.copyfileobj(content, out)
            point("install.unpacked_one")


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
                raise ArchiveError(str(self.archive), "more content than a bundle may have", "a smaller bundle")
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
