"""Create a folder with the pipeline's code and parameters."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.paths import REPOSITORY

COPIED = ("stages", "tasks", "device", "params.yaml", "dvc.yaml")


def copy_code(root: Path) -> Path:
    """Copy the pipeline's code and parameters into the folder `root`."""
    for name in COPIED:
        origin = REPOSITORY / name
        if origin.is_dir():
            shutil.copytree(origin, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(origin, root / name)
    return root
