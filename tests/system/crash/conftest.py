"""One line at the end: how many faults there were, and how many the device survived."""

from __future__ import annotations

import pytest

COUNTED = "faults"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = failed = 0
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            count = sum(value for name, value in getattr(report, "user_properties", []) if name == COUNTED)
            passed += count if outcome == "passed" else 0
            failed += count if outcome == "failed" else 0
    if passed or failed:
        terminalreporter.write_line(f"{passed + failed} faults, {passed} survived")
