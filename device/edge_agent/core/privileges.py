"""Drop root's privileges: work as the owner of the state directory instead."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def become_owner(folder: Path) -> None:
    """If this process is root, continue as the user that owns the state directory, for good.

    The service can then write the files that are created here, and a downloaded release is unpacked and run without
    root's privileges. A process of another user is not changed.
    """
    if (owner := _owner(folder)) is not None:
        user, group = owner
        os.setgroups([group])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)


@contextlib.contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """If this process is root, take the owner's privileges within the block, to read files that the owner controls."""
    if (owner := _owner(folder)) is None:
        yield
        return
    user, group = owner
    own_group, own_groups = os.getegid(), os.getgroups()
    os.setgroups([group])
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(own_group)
        os.setgroups(own_groups)


def _owner(folder: Path) -> tuple[int, int] | None:
    """Return user and group of `folder` if this process is root and that user is not, else None."""
    if os.geteuid() != 0:
        return None
    try:
        owner = folder.stat()
    except FileNotFoundError:
        return None
    return (owner.st_uid, owner.st_gid) if owner.st_uid != 0 else None
