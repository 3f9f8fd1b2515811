"""Skip a test whose requirements this machine lacks, with a message on how to get them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

SHARED = REPOSITORY.parent / "shared" / "data"


def need_program(name: str, package: str) -> str:
    """Return the path of a program, also from sbin; skip the test if it is not installed."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if not path:
        pytest.skip(f"{name} is not installed; get it with: apt-get install {package}")
    return path


def shared_data(name: str) -> Path:
    """Return the path of a real data set beside the checkout; skip the test if it does not exist."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} does not exist; put the data set {name} into ../shared/data beside the checkout")
    return path
