"""Fixtures that every test may use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
COPIED = ("stages", "tasks", "device", "params.yaml", "dvc.yaml")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the pipeline's code and parameters, as current directory. No data, no git."""
    for name in COPIED:
        origin = REPOSITORY / name
        if origin.is_dir():
            shutil.copytree(origin, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(origin, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
