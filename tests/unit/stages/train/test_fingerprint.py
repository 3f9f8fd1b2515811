"""Test that the digest of a training run covers every module that decides the run's result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.params import load
from stages.train import checkpoints
from tests.support.imports import closure
from tests.support.paths import REPOSITORY

STAGES = REPOSITORY / "stages"
# Modules that a training run imports and its digest leaves out, because they do not affect the weights.
EXCLUDED = {
    "core/command.py": "help texts and the program's name",
    "core/errors.py": "error messages",
    "core/files.py": "reads and writes bytes as they are",
    "train/duration.py": "measures the time",
    "train/progress.py": "prints the progress",
}


class OneProcess:
    """The attributes of Fabric that `checkpoint_folder` reads."""

    device = type("Device", (), {"type": "cpu"})
    world_size, is_global_zero = 1, True


def folder(workspace: Path) -> Path:
    fabric: Any = OneProcess()
    return checkpoints.checkpoint_folder("train", load(workspace), [], fabric)


def test_every_module_that_decides_a_run_is_listed() -> None:
    imported = {
        path.relative_to(STAGES).as_posix()
        for stage in ("train", "compress")
        for path in closure(STAGES / stage / "stage.py")
    }

    assert imported - set(checkpoints.CODE) == set(EXCLUDED)
    assert set(checkpoints.CODE) - imported == set()


def test_a_missing_listed_file_raises_an_error(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "CODE", (*checkpoints.CODE, "train/missing.py"))

    with pytest.raises(FileNotFoundError, match=r"train/missing\.py"):
        folder(workspace)


def test_other_code_gives_another_folder(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = folder(workspace)
    monkeypatch.setattr(checkpoints, "CODE", checkpoints.CODE[1:])

    assert folder(workspace) != complete
