"""Fixtures that every test may use."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.servers import WebServer, web_server
from tests.support.stages.workspace import copy_code

pytest_plugins = [
    "tests.support.coverage_lines",
    "tests.support.crash_day",
    "tests.support.end_on_signal",
    "tests.support.tiers",
]

# A test must not fail because the machine is busy.
settings.register_profile("without_deadline", deadline=None)
settings.load_profile("without_deadline")

# NOTE: pyspark takes a main module without a file for a doctest and ends the process with exit code 0, when
# great-expectations imports it. A test worker's main module has none.
if not hasattr(sys.modules["__main__"], "__file__"):
    sys.modules["__main__"].__file__ = __file__


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the pipeline's code and parameters, as current directory. No data, no git."""
    monkeypatch.chdir(copy_code(tmp_path))
    return tmp_path


# What takes seconds is made once per worker, and copied for each test. Imports stand inside: most tests need none.


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.stages.built import build

    root = copy_code(tmp_path_factory.mktemp("built"))
    build(root)
    return root


@pytest.fixture(scope="session")
def packaged_once(built_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from stages.gate import stage as gate
    from stages.package import stage as package

    root = tmp_path_factory.mktemp("packaged")
    shutil.copytree(built_once, root, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "argv", ["stage"])
        gate.main()
        package.main()
    return root


@pytest.fixture
def built(built_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in which everything before the gate has been written, with no arguments on the command line."""
    shutil.copytree(built_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage"])
    return tmp_path


@pytest.fixture
def packaged(packaged_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, in which the gate passed and a bundle was made."""
    shutil.copytree(packaged_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage"])
    return tmp_path


@pytest.fixture
def gated(packaged: Path) -> Path:
    """A workspace in which everything up to the gate has been written, and the gate passed."""
    shutil.rmtree(packaged / "models/bundle")
    return packaged


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips", action="store_true", help="a skipped test is a failure: for machines that have it all"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.config.getoption("--no-skips") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may skip: {report.longrepr}"
    return report
