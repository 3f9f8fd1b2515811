"""A pytest plug-in that selects the crash tests of a run and reports their results.

There are hundreds of faults, each tested on a separate device. A run tests a tenth of them, so that ten consecutive
days test them all. CRASH_DAY is the number of the day (any whole number; by default the days since 1970), or `all`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import pytest

VARIABLE = "CRASH_DAY"
ALL = "all"
PARTS = 10
COUNTED = "faults"  # the user property of a test that holds the number of its faults


def part_of_day(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the part of the crash tests that this run includes, from 0, or None for all. Raises ValueError."""
    day = environment.get(VARIABLE) or str(int(time.time()) // 86400)
    return None if day == ALL else int(day) % PARTS


def includes(part: int | None, number: int) -> bool:
    """Return whether the part includes the case of this number."""
    return part is None or number % PARTS == part


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "crash_case(number): one of many faults; a run tests a tenth of them")
    try:
        part_of_day()
    except ValueError:
        value = os.environ[VARIABLE]
        raise pytest.UsageError(f"{VARIABLE}: found {value!r}, expected a whole number or `{ALL}`") from None
    # Workers of pytest-xdist inherit the variable, so that a run past midnight keeps its day.
    os.environ.setdefault(VARIABLE, str(int(time.time()) // 86400))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part = part_of_day()
    deselected = [
        item for item in items if (case := item.get_closest_marker("crash_case")) and not includes(part, case.args[0])
    ]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        deselected_set = set(deselected)
        items[:] = [item for item in items if item not in deselected_set]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = failed = 0
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            count = sum(value for name, value in getattr(report, "user_properties", []) if name == COUNTED)
            passed += count if outcome == "passed" else 0
            failed += count if outcome == "failed" else 0
    if passed or failed:
        part = part_of_day()
        parts = "all parts" if part is None else f"part {part + 1} of {PARTS}"
        terminalreporter.write_line(f"crash matrix: {parts}, {VARIABLE}={os.environ[VARIABLE]}")
        terminalreporter.write_line(f"{passed + failed} faults, {passed} survived")
