"""A run tests a tenth of the crash matrix; ten consecutive days test all of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.crash_day import ALL, PARTS, VARIABLE, includes, part_of_day
from tests.support.paths import REPOSITORY
from tests.system.crash.test_crash_matrix import CASES


@pytest.mark.parametrize("first", [0, 7, 20_787])
def test_ten_consecutive_days_test_every_case_once(first: int) -> None:
    parts = [part_of_day({VARIABLE: str(day)}) for day in range(first, first + PARTS)]
    included = [number for part in parts for number in range(len(CASES)) if includes(part, number)]

    assert sorted(included) == list(range(len(CASES)))


@pytest.mark.slow
@pytest.mark.parametrize("day", ["7", ALL])
def test_a_run_collects_the_cases_of_its_day(day: str) -> None:
    """The other cases are deselected, not skipped, so that a run that forbids skips succeeds with a tenth of them."""
    collect = ["pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/system/crash/test_crash_matrix.py"]
    environment = {**os.environ, VARIABLE: day}
    done = subprocess.run(
        [sys.executable, "-m", *collect], capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=True
    )

    lines = done.stdout.splitlines()
    collected = {line.partition("[")[2].rstrip("]") for line in lines if "test_the_device_survives_a_fault[" in line}
    part = part_of_day({VARIABLE: day})
    assert collected == {"-".join(case) for number, case in enumerate(CASES) if includes(part, number)}
    assert any("test_every_fault_point_is_passed_by_an_operation" in line for line in lines)


@pytest.mark.slow
def test_a_day_that_is_not_a_number_is_refused() -> None:
    environment = {**os.environ, VARIABLE: "tomorrow"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/system/crash/test_crash_day.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "CRASH_DAY: found 'tomorrow', expected a whole number or `all`" in done.stderr
