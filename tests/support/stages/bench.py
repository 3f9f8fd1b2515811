"""A workspace with a task `bench`, for tests that write rows and run stages in this process."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages.core.dataset import SPLITS, SampleSpec, Split
from stages.core.errors import run
from tests.support.stages.contract import write_rows, write_task

PREPARED = Path("data/prepared")


@dataclass(frozen=True)
class Bench:
    """The workspace, which is the current directory."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def task(self, blocks: dict[str, Any], changes: dict[str, Any] | None = None, **shared: Any) -> None:
        """Write the task's parameters (`write_task`)."""
        write_task(self.root, blocks, changes, **shared)

    def collected(self, rows: pd.DataFrame, source: str = "rig", part: int = 0) -> Path:
        """Write rows of a source as `collect` does, and return the file."""
        return write_rows(self.root, rows, "data/snapshot", source, part)

    def validated(self, rows: pd.DataFrame, source: str = "rig") -> Path:
        """Write rows as `validate` does, and return the file."""
        return write_rows(self.root, rows.assign(source=source), "data/validated", source)

    def run(self, stage: str, *options: str) -> int:
        """Run a stage as its command line does, and return the exit code."""
        return call_stage(stage, self.monkeypatch, *options)

    def refused(self, stage: str, keeps: tuple[str, ...] = ()) -> str:
        """Run a stage that must refuse its input without changing files in `keeps`, and return its message."""
        before = contents(*keeps)
        code = self.run(stage)
        message = self.capsys.readouterr().err
        assert code == 1
        assert message.startswith("error: ")
        assert contents(*keeps) == before
        return message


def call_stage(stage: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """Run a stage as its command line does, in this process, and return the exit code."""
    monkeypatch.setattr(sys, "argv", [f"stages.{stage}", *options])
    try:
        run(importlib.import_module(f"stages.{stage}.stage").main)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def contents(*folders: str) -> dict[str, bytes]:
    """Return every file below these folders of the current directory, with its content."""
    return {
        str(path): path.read_bytes() for folder in folders for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }


def read_prepared() -> tuple[SampleSpec, dict[str, Split]]:
    return SampleSpec.read(PREPARED), {name: Split.open(PREPARED, name) for name in SPLITS}
