"""Files that survive a power cut: written aside, flushed to the disk, then renamed, and the rename flushed too.

A rename without the flush of the file before it may leave an empty file under the new name, and without the flush
of the directory after it may not have happened (Pillai et al., OSDI 2014, "All File Systems Are Not Created Equal").
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from edge_agent.core.fault_points import point


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """The system's errors name the file: of a write to a full disk they do not."""
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


# A directory's entries are flushed in the same way.
sync_directory = sync_file


def sync_tree(folder: Path) -> None:
    """Flush every file and directory below `folder`, and `folder` itself. Links are entries of their directory."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                sync_file(path)
        sync_directory(Path(parent))


def make_directory(path: Path) -> None:
    """Make a directory and those above it where they are missing, each one's entry flushed to the disk."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def write_file(path: Path, content: bytes, faults: str = "") -> None:
    """Replace `path` by `content`, or leave what was there, whatever happens in between.

    `faults` names the family of fault points on the way ("state": state.before_write and so on).
    """

    def at(name: str) -> None:
        if faults:
            point(f"{faults}.{name}")

    partial = path.with_name(f".{path.name}.partial")
    at("before_write")
    try:
        with named(path), partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            at("after_write")
            at("before_fsync")
            os.fsync(stream.fileno())
        at("before_rename")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    at("after_rename")
    sync_directory(path.parent)
    at("after_directory_fsync")


def replace_link(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target` in one step, in place of the one that was there."""
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    point("link.before_rename")
    partial.replace(link)
    point("link.after_rename")
    sync_directory(link.parent)
