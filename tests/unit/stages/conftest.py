"""Fixtures of the stages' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stages.bench import Bench


@pytest.fixture
def bench(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """A workspace for a task of the test's own."""
    return Bench(workspace, monkeypatch, capsys)
