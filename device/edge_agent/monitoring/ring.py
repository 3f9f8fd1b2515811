"""The ring of captured samples on the disk. The oldest samples are deleted to limit its size and age.

The ring is a folder of segments, `<number>.seg`. A segment is a file of records, and new records are appended to the
newest segment. A record consists of a header and content:

    header: magic "EAS1", then three little-endian uint32: length of the content, length of the JSON at the start of the
    content, and CRC-32 of these two lengths and the content
    content: JSON, then the sample's float32 values in C order (the record of a label has no values)

A segment is flushed to the disk when it is full and when the ring is closed, so a power cut loses at most the last
segment. A segment is read up to its first incomplete or damaged record. The next start of the service creates a new
segment.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_agent.core.durable import sync_directory
from edge_agent.core.space import disk_full
from edge_agent.monitoring.sample_times import EARLIEST

log = logging.getLogger("edge_agent.ring")  # the logger's name becomes the event of its log records

MAGIC = b"EAS1"
HEAD = struct.Struct("<4sIII")
SEGMENTS = 16  # number of segments in a full ring; when the ring exceeds its size, the oldest segment is deleted
MAX_CONTENT_BYTES = 1 << 30
NUMBER = re.compile("[0-9]{1,18}", re.ASCII)


class Ring:
    """The ring in one folder.

    Only one thread may call the methods; any thread may read the attributes `samples` and `bytes`.
    """

    def __init__(self, folder: Path, limit_bytes: int, max_age_days: float) -> None:
        """Open the ring.

        Args:
            folder: The folder of the segments. It is created when the first record is written.
            limit_bytes: Maximum total size of the segments in bytes.
            max_age_days: Segments that were last written more than this number of days ago are deleted.
        """
        self.folder, self.limit = folder, limit_bytes
        self._max_age_s = max_age_days * 86400
        self._stream: io.FileIO | None = None
        self._segments: list[tuple[Path, int, int]] = []  # path, samples, bytes of each closed segment
        self._samples = self._bytes = 0  # samples and bytes of the open segment
        for path in segments(folder):
            count = sum(1 for metadata, _ in records(path) if "id" in metadata)
            self._segments.append((path, count, path.stat().st_size))
        self._count()
        self._next = max((int(path.stem) for path in _named(folder)), default=-1) + 1

    def append(self, metadata: dict[str, Any], values: bytes) -> None:
        """Append one record to the open segment. If writing fails, close the segment and raise OSError."""
        text = json.dumps(metadata, separators=(",", ":")).encode()
        content = text + values
        record = HEAD.pack(MAGIC, len(content), len(text), _checksum(len(content), len(text), content)) + content
        try:
            if self._stream is None:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                path = self.folder / f"{self._next:08d}.seg"
                self._next += 1
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                # The file is unbuffered, so that a killed process loses no record and an export includes every record.
                self._stream = io.FileIO(descriptor, "wb")
            if self._stream.write(record) != len(record):
                raise disk_full(self.folder)
        except OSError:
            self.close()
            raise
        self._samples += "id" in metadata
        self._bytes += len(record)
        if self._bytes * SEGMENTS >= self.limit:
            self.close()
        self._make_room()
        self._count()

    def close(self) -> None:
        """Flush the open segment to the disk and close it."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        path = Path(self.folder, f"{self._next - 1:08d}.seg")
        try:
            with stream:
                os.fsync(stream.fileno())
            sync_directory(self.folder)
        except OSError as error:
            log.warning("%s: not flushed (%s)", path, error.strerror or error)
        self._segments.append((path, self._samples, path.stat().st_size if path.exists() else 0))
        self._samples = self._bytes = 0

    def _make_room(self) -> None:
        while self._segments:
            path, _, _ = self._segments[0]
            total = sum(size for _, _, size in self._segments) + self._bytes
            old = time.time() - written_at(path) > self._max_age_s
            if total <= self.limit and not old:
                return
            path.unlink(missing_ok=True)
            del self._segments[0]

    def _count(self) -> None:
        self.samples = sum(count for _, count, _ in self._segments) + self._samples
        self.bytes = sum(size for _, _, size in self._segments) + self._bytes


def written_at(path: Path) -> float:
    """Return the time at which a segment was last written, in seconds since 1970.

    If the device's clock had not been set then, its age counts from now on: the present becomes the time of the file.
    For a deleted segment, the present is returned.
    """
    with contextlib.suppress(OSError):  # for example, on a read-only disk
        written = path.stat().st_mtime
        if written >= EARLIEST.timestamp():
            return written
        os.utime(path)
    return time.time()


def segments(folder: Path) -> list[Path]:
    """Return the segments in `folder`, oldest first.

    Other files are ignored, even a pipe or a directory with a segment's name.
    """
    return [path for path in _named(folder) if path.is_file() and not path.is_symlink()]


def _named(folder: Path) -> list[Path]:
    paths = [path for path in folder.glob("[0-9]*.seg") if NUMBER.fullmatch(path.stem)]
    return sorted(paths, key=lambda path: int(path.stem))


def records(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield the metadata and the values of each record of a segment, up to the first incomplete or damaged record."""
    try:
        # Without O_NONBLOCK, opening a named pipe that has a segment's name would block forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # this segment was deleted while the segments before it were read
    with os.fdopen(descriptor, "rb") as stream:
        while len(head := stream.read(HEAD.size)) == HEAD.size:
            magic, length, text, checksum = HEAD.unpack(head)
            if magic != MAGIC or text > length or length > MAX_CONTENT_BYTES:
                return
            content = stream.read(length)
            if len(content) != length or _checksum(length, text, content) != checksum:
                return
            yield json.loads(content[:text]), content[text:]


def _checksum(length: int, text: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(struct.pack("<II", length, text)))
