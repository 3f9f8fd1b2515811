"""A pytest plug-in that prints coverage per package: with `--cov`, one line per package instead of one per file.

It counts the statements that this process and its workers ran, not those of programs that tests start.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    controller = getattr(config.pluginmanager.get_plugin("_cov"), "cov_controller", None)
    if controller is None:
        return
    coverage = controller.combining_cov or controller.cov
    statements: dict[str, int] = defaultdict(int)
    missed: dict[str, int] = defaultdict(int)
    # Jinja runs code that it compiled from a template under the template's file name; a template has no statements.
    for file in (file for file in coverage.get_data().measured_files() if file.endswith(".py")):
        _, lines, _, missing, _ = coverage.analysis2(file)
        for package in (package_of(Path(file)), "all"):
            statements[package] += len(lines)
            missed[package] += len(missing)
    terminalreporter.section("coverage")
    for package in sorted(statements, key=lambda name: (name == "all", name)):
        if statements[package]:
            covered = 1 - missed[package] / statements[package]
            terminalreporter.write_line(f"{package:<28} {covered:4.0%} of {statements[package]:5} statements")


def package_of(file: Path) -> str:
    return str(file.parent.relative_to(REPOSITORY)).removeprefix("device/")
