"""A pytest plug-in: which of the crash tests a run takes, and what came of them.

There are hundreds of faults, each with a device of its own. A run takes a tenth of them, and ten days in a row take
all: CRASH_DAY names the day (any whole number; without one, days since 1970), or is `all`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import pytest

VARIABLE = "CRASH_DAY"
ALL = "all"
PARTS = 10
COUNTED = "faults"  # the property of a test that says how many faults it made


def part_of_day(environment: Mapping[str, str] = os.environ) -> int | None:
    """Which part of the crash tests today's run takes, from 0; None: all of them. Raises ValueError."""
    day = environment.get(VARIABLE) or str(int(time.time()) // 86400)
    return None if day == ALL else int(day) % PARTS


def takes(part: int | None, number: int) -> bool:
    """Whether the case of this number belongs to the part."""
    return part is None or number % PARTS == part


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "crash_case(number): one fault of many, of which a run takes a tenth")
    try:
        part_of_day()
    except ValueError:
        found = os.environ[VARIABLE]
        raise pytest.UsageError(f"{VARIABLE}: found {found!r}, expected a whole number or `{ALL}`") from None
    # Workers of pytest-xdist inherit it: a run that goes past midnight stays with its day.
    os.environ.setdefault(VARIABLE, str(int(time.time()) // 86400))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part = part_of_day()
    left_out = [
        item for item in items if (case := item.get_closest_marker("crash_case")) and not takes(part, case.args[0])
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        dropped = set(left_out)
        items[:] = [item for item in items if item not in dropped]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = failed = 0
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            count = sum(value for name, value in getattr(report, "user_properties", []) if name == COUNTED)
            passed += count if outcome == "passed" else 0
            failed += count if outcome == "failed" else 0
    if passed or failed:
        part = part_of_day()
        taken = "all parts" if part is None else f"part {part + 1} of {PARTS}"
        terminalreporter.write_line(f"crash matrix: {taken}, {VARIABLE}={os.environ[VARIABLE]}")
        terminalreporter.write_line(f"{passed + failed} faults, {passed} survived")
