"""Write a bundle as one file, with the same bytes for the same content. edge_agent.storage.archive unpacks the file.

The file is a tar archive (POSIX.1-1988 ustar) of regular files. They are sorted by name and have mode 0644, no owner
and modification time 0. One thread compresses the archive to one Zstandard frame (RFC 8878) with a fixed compression
level and a checksum.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import zstandard

from stages.core.errors import StageError

LEVEL = 19
MODE = 0o644


class BundleError(StageError):
    """The error for a folder that cannot be written as a bundle."""


def pack(folder: Path, archive: Path) -> None:
    """Write every file below `folder` to the file `archive`. An existing archive is kept until the new one is complete.

    Raises OSError, and BundleError if the folder contains anything but regular files and folders.
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
