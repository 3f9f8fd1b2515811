"""Progress passes every batch on, and tells of it no more than every few seconds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from stages.core import progress


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 3), (60.0, 0)])
def test_batches_pass_and_lines_are_rare(
    seconds: float, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given three batches
    monkeypatch.setattr(progress, "SECONDS", seconds)
    batches = [pa.record_batch({"n": np.arange(10)}) for _ in range(3)]
    # when
    passed = list(progress.watched(iter(batches), "prepare", 30))
    # then
    assert passed == batches
    told = capsys.readouterr().err.splitlines()
    assert len(told) == lines
    assert told[-1:] == ["prepare: 30 of 30 rows"][:lines]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # given standard error on a terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    batches = [pa.record_batch({"n": np.arange(10)})]
    # when, then
    assert list(progress.watched(iter(batches), "prepare", 10)) == batches
    assert "rows" not in capsys.readouterr().err
