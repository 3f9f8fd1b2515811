"""Both wheels contain every module and data file, and work without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow

PROJECTS = {"edge_ai_workflow": (".", ("fleet", "stages")), "edge_agent": ("device", ("edge_agent",))}
# Programs run when they are imported; the signing worker's library is in a separate environment (.venv-signing).
NOT_IMPORTED = (".__main__", "fleet.releases.sign_worker")
IMPORT_ALL = """
import importlib, pathlib, sys
site = sys.argv[1]
for name in sys.argv[2:]:
    file = importlib.import_module(name).__file__
    assert pathlib.Path(file).is_relative_to(site), f"{name}: {file}"
print(len(sys.argv) - 2)
"""


def package_files(project: str) -> set[str]:
    """Return the files of a project's packages that git tracks or would add, as paths in its wheel."""
    folder, packages = PROJECTS[project]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *packages],
        cwd=REPOSITORY / folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in listed.stdout.splitlines() if (REPOSITORY / folder / name).is_file()}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both projects' wheels, built from copies of what git tracks."""
    folder = tmp_path_factory.mktemp("wheels")
    built = {}
    for project, (source, _) in PROJECTS.items():
        copy = folder / project
        for name in (*package_files(project), "pyproject.toml", "README.md"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / source / name, copy / name)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*command, "--wheel-dir", folder, copy], check=True, timeout=300)
        (built[project],) = folder.glob(f"{project}-*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both wheels installed away from the checkout; what they require comes from this environment."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder]
    subprocess.run([*command, *wheels.values()], check=True, timeout=300)
    return folder


def call(site: Path, *command: str | Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("project", PROJECTS)
def test_a_wheel_contains_every_file_of_its_packages(wheels: dict[str, Path], project: str) -> None:
    names = zipfile.ZipFile(wheels[project]).namelist()

    assert {name for name in names if ".dist-info/" not in name} == package_files(project)


@pytest.mark.parametrize("project", PROJECTS)
def test_every_module_is_imported_from_the_wheel(site: Path, project: str) -> None:
    files = sorted(name for name in package_files(project) if name.endswith(".py"))
    modules = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files]
    imported = [name for name in modules if not name.endswith(NOT_IMPORTED)]

    assert call(site, sys.executable, "-W", "ignore", "-c", IMPORT_ALL, site, *imported) == f"{len(imported)}\n"


def test_the_programs_print_their_usage(site: Path) -> None:
    assert "usage: edge-agent" in call(site, site / "bin/edge-agent", "--help")
    assert "usage: fleet" in call(site, sys.executable, "-m", "fleet", "--help")
    assert "usage: python -m stages.train" in call(site, sys.executable, "-m", "stages.train", "--help")
