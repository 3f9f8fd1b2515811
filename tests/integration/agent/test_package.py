"""The package as installed on a device: from wheels, offline, with at most one runtime, without training packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lab import agents
from tests.support.agent.cli import Device
from tests.support.agent.releases import Releases
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow
RUNTIMES = {"onnx": "onnxruntime", "litert": "ai-edge-litert"}
TARGETS = {"onnx": "onnx-fp32", "litert": "tflite-int8"}
# Size of the installed Python packages without pip, in MB (1e6 bytes), including compiled modules.
LARGEST_MB = {"": 150, "onnx": 240, "litert": 220}
OF_TRAINING = {"torch", "tensorflow", "keras", "pandas", "scikit-learn", "onnx", "dvc", "lightning"}
IMPORT_ALL = """\
import importlib, pkgutil, edge_agent
for module in pkgutil.iter_modules(edge_agent.__path__):
    if module.name != "__main__":
        importlib.import_module(f"edge_agent.{module.name}")
"""


class Environment:
    """A new virtual environment with `edge-agent[extra]` from the wheelhouse, without a package index."""

    def __init__(self, folder: Path, extra: str) -> None:
        house, wheels = agents.wheelhouses() / agents.NAMES[False], folder / "wheels"
        with tarfile.open(next(house.glob("dependencies-*.tar"))) as archive:
            archive.extractall(wheels, filter="data")
        self.folder, self.python = folder / "venv", folder / "venv" / "bin" / "python"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        self.environment = {**clean, "PIP_CONFIG_FILE": os.devnull}
        self.call(Path(sys.executable), "-m", "venv", "--without-pip", str(self.folder))
        install = ["install", "--quiet", "--no-index", f"--find-links={wheels}", f"--find-links={house}"]
        requirement = f"edge-agent[{extra}]" if extra else "edge-agent"
        self.call(Path(sys.executable), "-m", "pip", f"--python={self.python}", *install, requirement)

    def call(self, program: Path, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [str(program), *arguments], capture_output=True, text=True, env=self.environment, cwd=self.folder.parent
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def agent(self, device: Device, *arguments: str, code: int = 0) -> dict[str, Any]:
        program = self.folder / "bin" / "edge-agent"
        value: dict[str, Any] = json.loads(
            self.call(program, f"--config={device.file}", "--json", *arguments, code=code)
        )
        return value

    def distributions(self) -> set[str]:
        names = "import importlib.metadata as m; print(*{d.name.lower() for d in m.distributions()}, sep='\\n')"
        return set(self.call(self.python, "-c", names).split())

    def size_mb(self) -> float:
        return (
            sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file() and not file.is_symlink())
            / 1e6
        )


@pytest.fixture(scope="module", params=["", "onnx", "litert"], ids=["bare", "onnx", "litert"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Environment]:
    return request.param, Environment(tmp_path_factory.mktemp("environment"), request.param)


def test_the_wheel_holds_every_file_of_the_package() -> None:
    wheel = next((agents.wheelhouses() / agents.NAMES[False]).glob("edge_agent-*.whl"))
    package = REPOSITORY / "device" / "edge_agent"
    files = [file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("edge_agent/")}
    assert packed == {file.relative_to(package.parent).as_posix() for file in files}


def test_its_dependencies_are_small_and_exclude_training(
    installed: tuple[str, Environment], record_property: Any
) -> None:
    extra, environment = installed
    distributions = environment.distributions()
    assert not distributions & OF_TRAINING
    assert distributions & set(RUNTIMES.values()) == ({RUNTIMES[extra]} if extra else set())
    record_property("size_mb", round(environment.size_mb(), 1))
    assert environment.size_mb() <= LARGEST_MB[extra]


def test_every_module_is_imported_without_a_warning(installed: tuple[str, Environment]) -> None:
    _, environment = installed
    assert environment.call(environment.python, "-W", "error", "-c", IMPORT_ALL) == ""


def test_it_reports_its_state_and_a_missing_runtime(installed: tuple[str, Environment], tmp_path: Path) -> None:
    """Given a release for each runtime, a device installs and tests those that its runtime reads."""
    extra, environment = installed
    releases = Releases(tmp_path / "releases")
    device = Device(tmp_path / "device", releases.repository)
    try:
        assert environment.agent(device, "status")["current"] is None
        for own, target in TARGETS.items():
            release = f"pump@{len(releases.bundles) + 1}.0.0"
            releases.publish(release, targets=[target])
            if own == extra:
                environment.agent(device, "install", release)
                assert environment.agent(device, "activate", release)["selftest"]["target"] == target
            else:
                refused = environment.agent(device, "install", release, code=4)
                assert f"is not installed; add the agent's extra `{own}`" in refused["found"]
    finally:
        device.remove()
