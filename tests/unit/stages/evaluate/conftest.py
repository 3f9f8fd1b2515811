"""Folders with all that `python -m stages.evaluate` needs: before it ran, and after."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.stages.evaluate import evaluate, write_measurable


@pytest.fixture
def measurable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the stage needs, as current directory."""
    monkeypatch.chdir(write_measurable(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stage had all that it needs, and has run."""
    root = write_measurable(tmp_path_factory.mktemp("measured"))
    done = evaluate(root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def copy(measured: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(measured, tmp_path / "copy"))
