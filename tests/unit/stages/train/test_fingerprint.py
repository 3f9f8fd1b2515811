"""A checkpoint is of the code that wrote it: every module that decides a training run is in the run's digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.params import load
from stages.train import checkpoints
from tests.support.imports import closure
from tests.support.paths import REPOSITORY

STAGES = REPOSITORY / "stages"
# Imported by a training run, and not in its digest: what decides none of its weights.
EXCLUDED = {
    "core/command.py": "what --help says",
    "core/errors.py": "messages",
    "core/files.py": "reads and writes bytes as they are",
    "train/duration.py": "how long it took",
    "train/progress.py": "what is printed",
}


class OneProcess:
    """What `checkpoint_folder` asks of Fabric."""

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


def test_a_listed_file_that_is_missing_is_an_error(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "CODE", (*checkpoints.CODE, "train/gone.py"))

    with pytest.raises(FileNotFoundError, match=r"train/gone\.py"):
        folder(workspace)


def test_other_code_makes_another_run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = folder(workspace)
    monkeypatch.setattr(checkpoints, "CODE", checkpoints.CODE[1:])

    assert folder(workspace) != whole
