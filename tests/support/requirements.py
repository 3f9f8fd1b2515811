"""What a test needs from the machine: there, or skipped with a word on how to get it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

SHARED = REPOSITORY.parent / "shared" / "data"


def need_program(name: str, package: str) -> str:
    """The path of a program; skips the test where it is not installed. Looks in sbin too."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if not found:
        pytest.skip(f"{name} is not installed; get it with: apt-get install {package}")
    return found


def shared_data(name: str) -> Path:
    """The path of a real data set beside the checkout; skips the test where it is not there."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there; put the data set {name} into ../shared/data beside the checkout")
    return path
