"""Find the git commit of an inventory, so that the record of a rollout can contain it."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

DIRTY = "-dirty"  # suffix of a commit, as in `git describe`


def inventory_commit(path: Path) -> str | None:
    """Return the checked-out commit of an inventory's git repository; None if there is no repository or commit.

    The suffix `-dirty` is added to the commit if files of the inventory differ from it.
    """
    folder = path if path.is_dir() else path.parent
    git = partial(subprocess.run, cwd=folder, capture_output=True, text=True, check=False)
    head = git(["git", "rev-parse", "HEAD"])
    if head.returncode != 0:  # in a repository without a commit, git fails
        return None
    changes = git(["git", "status", "--porcelain", "--ignored", "."]).stdout
    return head.stdout.strip() + (DIRTY if changes else "")
