"""A pytest plug-in: which tests a tier takes, and in which order (tests/README.md).

`exhaustive` and `fleet` tests are `slow` as well. Modules go by how long they take, the longest first: two workers that
take modules one after the other end together then. A run without slow tests does not import a module that has no other:
libraries take seconds to import.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# Seconds of `make test`, by module; those that are not here take less than 15 s. `--module-times` prints them anew.
SECONDS: dict[str, int] = {}
SLOW_S = 10
SLOW_MODULE = re.compile(r"^pytestmark = .*pytest\.mark\.slow", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--module-times", action="store_true", help="print how long each module took, the longest first")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True for a module whose every test `-m "not slow"` would deselect; None leaves it to others."""
    if config.option.markexpr != "not slow" or not collection_path.match("test_*.py"):
        return None
    return True if SLOW_MODULE.search(collection_path.read_text(encoding="utf-8")) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("exhaustive") or item.get_closest_marker("fleet"):
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: -expected_s(item.path, item.path in slow))


def expected_s(path: Path, slow: bool) -> int:
    """Seconds, roughly: what was measured, or a guess."""
    name = str(path.relative_to(TESTS)) if path.is_relative_to(TESTS) else ""
    return SECONDS.get(name, SLOW_S if slow else 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("--module-times"):
        return
    took: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                module = report.nodeid.partition("::")[0]
                took[module] = took.get(module, 0.0) + report.duration
    terminalreporter.section("modules")
    for module, seconds in sorted(took.items(), key=lambda each: -each[1]):
        terminalreporter.write_line(f"{seconds:8.1f} s  {module}")
