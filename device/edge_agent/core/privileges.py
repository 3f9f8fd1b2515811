"""As whom the agent works: never as root where the state directory has another owner."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def become_owner(folder: Path) -> None:
    """As root: go on as the user that owns the state directory, so that the service can write what is made here.

    It also unpacks and runs what was downloaded without root's rights. Group and other users are left as they are.
    """
    if (owner := _owner(folder)) is not None:
        user, group = owner
        os.setgroups([group])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)


@contextlib.contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """As root: the owner's rights for a while, for reading what the owner could have put there."""
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
    """User and group of `folder`, where this process is root and that user is not."""
    if os.geteuid() != 0:
        return None
    try:
        owner = folder.stat()
    except FileNotFoundError:
        return None
    return (owner.st_uid, owner.st_gid) if owner.st_uid != 0 else None
