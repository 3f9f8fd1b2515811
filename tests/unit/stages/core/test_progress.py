"""Progress is reported no more than every few seconds, as lines or as a bar; batches pass unchanged."""

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
    passed = list(progress.report_rows(iter(batches), "prepare", 30))
    # then
    assert passed == batches
    reported = capsys.readouterr().err.splitlines()
    assert len(reported) == lines
    assert reported[-1:] == ["prepare: 30 of 30 rows"][:lines]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # given standard error on a terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    batches = [pa.record_batch({"n": np.arange(10)})]
    # when, then
    assert list(progress.report_rows(iter(batches), "prepare", 10)) == batches
    assert "rows" not in capsys.readouterr().err


def test_a_long_download_reports_its_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS", -1.0)
    with progress.download_progress() as shown:
        shown.start("plant", 4_000_000, 1_000_000)
        shown.advance("plant", 1_000_000)
        shown.start("other", None)
        shown.advance("other", 500_000)

    assert capsys.readouterr().out == "plant: 2.0 of 4.0 MB (50%)\nother: 0.5 MB\n"


def test_a_restarted_download_counts_from_its_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with progress.download_progress() as shown:
        shown.start("plant", 4_000_000)
        shown.advance("plant", 3_000_000)
        shown.start("plant", 2_000_000, 1_000_000)
        shown.advance("plant", 500_000)

    assert capsys.readouterr().out.splitlines()[-1] == "plant: 1.5 of 2.0 MB (75%)"
