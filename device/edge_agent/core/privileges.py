"""Drop root's privileges, so that the process runs as the owner of the state directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def become_owner(folder: Path) -> None:
    """If this process runs as root, permanently switch it to the user that owns the state directory `folder`.

    The service can then write the files that this process creates, and a downloaded release is unpacked and run without
    root's privileges. A process that does not run as root keeps its user.
    """
    if (owner := _owner(folder)) is not None:
        user, group = owner
        os.setgroups([group])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)


@contextlib.contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """Within the block, use the privileges of the user that owns the state directory `folder` instead of root's.

    Files that the owner can change are therefore never read with root's privileges. A process that does not run as root
    keeps its privileges.
    """
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
    """Return the ids of the user and the group that own `folder`.

    Return None if this process does not run as root, if `folder` does not exist, or if root owns `folder`.
    """
    if os.geteuid() != 0:
        return None
    try:
        owner = folder.stat()
    except FileNotFoundError:
        return None
    return (owner.st_uid, owner.st_gid) if owner.st_uid != 0 else None
