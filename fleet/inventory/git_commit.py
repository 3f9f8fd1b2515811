"""The git commit of an inventory: what the record of a rollout names as what was declared."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

DIRTY = "-dirty"  # behind a commit, as `git describe` says it


def inventory_commit(path: Path) -> str | None:
    """What is checked out where the inventory lies, `-dirty` where that says something else; None outside git."""
    folder = path if path.is_dir() else path.parent
    git = partial(subprocess.run, cwd=folder, capture_output=True, text=True, check=False)
    done = git(["git", "rev-parse", "HEAD"])
    if done.returncode != 0:  # without a commit git says HEAD, and fails
        return None
    other = git(["git", "status", "--porcelain", "--ignored", "."]).stdout
    return done.stdout.strip() + (DIRTY if other else "")
