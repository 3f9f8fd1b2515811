"""Test the duration of a training, which includes the time of killed runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.train.duration import Stopwatch, write_duration


class Clock:
    """A clock whose time the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_resumed_run_adds_the_time_of_the_earlier_run(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "seconds"
    first = Stopwatch(path, clock)
    clock.now = 107.5
    first.save()
    clock.now = 500.0  # the first run was killed; the pause does not count
    second = Stopwatch(path, clock)
    clock.now = 502.0

    assert second.seconds == pytest.approx(9.5)


@pytest.mark.parametrize("content", [None, "", "long"])
def test_without_a_readable_file_the_time_starts_at_zero(tmp_path: Path, content: str | None) -> None:
    clock, path = Clock(), tmp_path / "seconds"
    if content is not None:
        path.write_text(content)

    assert Stopwatch(path, clock).seconds == 0.0


def test_the_report_is_rounded_to_milliseconds(tmp_path: Path) -> None:
    write_duration(tmp_path / "durations/train.json", 12.34567)

    assert json.loads((tmp_path / "durations/train.json").read_text()) == {"seconds": 12.346}
