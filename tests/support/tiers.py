"""A pytest plug-in that selects the tests of a tier and orders them (tests/README.md).

`exhaustive` and `fleet` tests are `slow` as well. The modules that take longest run first, so that two workers finish
at about the same time. A run without slow tests does not import modules that have only slow tests, because libraries
take seconds to import.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# Seconds of `make test`, by module; the others take less than 15 s. `--module-times` prints them.
SECONDS: dict[str, int] = {
    "integration/rollouts/test_embedded.py": 240,
    "system/lab/test_bootstrap.py": 210,
    "integration/pipeline/test_pipeline.py": 205,
    "system/fleet_faults/test_smoke.py": 200,
    "unit/stages/export/test_targets.py": 145,
    "integration/rollouts/test_workers_ssh.py": 140,
    "integration/pipeline/test_experiments.py": 140,
    "integration/playbooks/test_embedded.py": 135,
    "unit/fleet/cli/test_publish.py": 130,
    "integration/rollouts/test_bake.py": 105,
    "unit/stages/train/test_train.py": 95,
    "unit/fleet/cli/test_logs.py": 60,
    "system/crash/test_unwritable_disks.py": 60,
    "integration/pipeline/test_shipped_tasks.py": 60,
    "integration/pipeline/test_own_task.py": 50,
    "integration/pipeline/test_absent_class.py": 45,
    "unit/stages/tables/test_tables.py": 45,
    "integration/agent/test_cli.py": 40,
    "integration/repository/test_setup.py": 40,
    "unit/fleet/inventory/test_workers.py": 40,
    "unit/stages/compress/test_compress.py": 40,
    "integration/agent/test_service.py": 40,
    "unit/edge_agent/update/test_conformance.py": 30,
    "integration/agent/test_package.py": 30,
    "unit/fleet/inventory/test_inventory.py": 30,
    "unit/fleet/releases/test_object_store.py": 30,
    "unit/stages/gate/test_evidence.py": 25,
    "unit/fleet/rollout/test_resume.py": 25,
    "unit/stages/core/test_dataset.py": 25,
    "unit/stages/test_summary.py": 25,
    "unit/stages/validate/test_validate.py": 25,
    "system/lab/test_ended_runs.py": 25,
    "integration/pipeline/test_report_browser.py": 20,
    "system/lab/test_lab.py": 20,
    "unit/edge_agent/inference/test_selftest.py": 20,
    "system/crash/test_crash_matrix.py": 20,
    "system/crash/test_power_cuts.py": 20,
    "integration/playbooks/test_raw_vars.py": 20,
    "unit/stages/test_restore.py": 15,
    "integration/repository/test_wheels.py": 15,
    "unit/fleet/releases/test_keys.py": 15,
    "unit/fleet/inventory/test_ssh_checks.py": 15,
    "unit/fleet/releases/test_repository_storage.py": 15,
}
SLOW_S = 8
SLOW_MODULE = re.compile(r"^pytestmark = .*pytest\.mark\.slow", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--module-times", action="store_true", help="print how long each module took, the longest first")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore a module if `-m "not slow"` would deselect all its tests; None leaves the decision to other plug-ins."""
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
    """Return the expected seconds of a module: measured, or a guess."""
    name = str(path.relative_to(TESTS)) if path.is_relative_to(TESTS) else ""
    return SECONDS.get(name, SLOW_S if slow else 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("--module-times"):
        return
    seconds_by_module: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                module = report.nodeid.partition("::")[0]
                seconds_by_module[module] = seconds_by_module.get(module, 0.0) + report.duration
    terminalreporter.section("modules")
    for module, seconds in sorted(seconds_by_module.items(), key=lambda each: -each[1]):
        terminalreporter.write_line(f"{seconds:8.1f} s  {module}")
