"""A stage without input reports it, and ends without a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.stages.bench import Bench
from tests.support.stages.contract import SERIES


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("validate", "data/snapshot/rig: it has no parquet file"),
        ("prepare", "data/validated: it contains no data set"),
    ],
)
def test_without_input_the_command_line_ends_without_a_traceback(stage: str, message: str, bench: Bench) -> None:
    bench.task(SERIES)

    done = subprocess.run([sys.executable, "-m", f"stages.{stage}"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert "Traceback" not in done.stderr
