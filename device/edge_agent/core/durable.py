"""Write files so that they survive a power cut: write a temporary file, flush it, rename it, and flush its directory.

If the file is not flushed before the rename, the new name can refer to an empty file after a power cut. If the
directory is not flushed after the rename, the rename can be lost (Pillai et al., OSDI 2014, "All File Systems Are Not
Created Equal").
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from edge_agent.core.fault_points import point

WRITE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC  # without O_TRUNC, because a temporary file may have reserved space


@contextlib.contextmanager
def add_file_name(path: Path) -> Iterator[None]:
    """If the `with` block raises an OSError that has no file name, set its file name to `path`.

    For example, the OSError of a write to a full disk has no file name.
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# fsync also flushes the entries of a directory.
sync_directory = sync_file


def sync_tree(folder: Path) -> None:
    """Flush `folder` and every file and directory below it to the disk.

    Symbolic links are not flushed separately, because flushing a directory also flushes the links that it contains.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                sync_file(path)
        sync_directory(Path(parent))


def make_directory(path: Path) -> None:
    """Create a directory and its missing parents, and flush the new directory entries to the disk."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def write_file(path: Path, content: bytes, faults: str = "", reserve_bytes: int = 0) -> None:
    """Create a file or replace its content. After a crash or a power cut, the file has the old or the new content.

    Args:
        path: The file to write.
        content: The new content of the file.
        faults: The first part of the names of this write's fault points (see core/fault_points.py), such as `state`
            in `state.before_write`; empty if this write has no fault points.
        reserve_bytes: Disk space to allocate for the next write of this file (see `reserve`); 0 allocates none.

    Raises:
        OSError: The write failed. The file has the old content, or the new content if only the directory could not be
            flushed.
    """

    def pass_point(name: str) -> None:
        if faults:
            point(f"{faults}.{name}")

    partial = _partial(path)
    pass_point("before_write")
    try:
        with add_file_name(path), os.fdopen(os.open(partial, WRITE, 0o666), "wb") as stream:
            stream.write(content)
            stream.truncate()
            pass_point("after_write")
            pass_point("before_fsync")
            os.fsync(stream.fileno())
        pass_point("before_rename")
        partial.replace(path)
    except OSError:
        if not reserve_bytes:
            partial.unlink(missing_ok=True)
        raise
    pass_point("after_rename")
    sync_directory(path.parent)
    pass_point("after_directory_fsync")
    if reserve_bytes:
        with contextlib.suppress(OSError):  # there is no space now; the next write may need new space
            reserve(path, reserve_bytes)


def reserve(path: Path, size: int) -> None:
    """Allocate disk space for the next `write_file` of `path`, so that it succeeds even if the disk is full then.

    The space is allocated to the temporary file, whose blocks the next write overwrites. Raises OSError.
    """
    if is_reserved(path, size):
        return
    descriptor = os.open(_partial(path), WRITE, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def is_reserved(path: Path, size: int) -> bool:
    """Return whether `size` bytes of disk space are allocated for the next `write_file` of `path`."""
    try:
        return _partial(path).stat().st_size >= size
    except OSError:
        return False


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def replace_link(link: Path, target: str) -> None:
    """Create the symbolic link `link`, which points to `target`. An existing link is replaced in one step."""
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    point("link.before_rename")
    partial.replace(link)
    point("link.after_rename")
    sync_directory(link.parent)
