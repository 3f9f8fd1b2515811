"""Rules for the repository itself: tracked files, dependencies of stages, pinned libraries."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.imports import closure
from tests.support.stages.clone import REPOSITORY, call

OLDEST_PYTHON = "3.11.2"

# Modules that affect no result: messages, file writing and --help. DVC tracks the values of parameters instead.
NO_RESULT = {
    "stages/core/command.py",
    "stages/core/errors.py",
    "stages/core/files.py",
    "stages/core/progress.py",
    "device/edge_agent/__init__.py",  # its version
}
PIPELINE = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [Path(name) for name in names.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


def stage_body(name: str) -> dict[str, object]:
    return PIPELINE[name].get("do", PIPELINE[name])


def test_no_private_key_and_no_token_is_tracked() -> None:
    secret = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}")
    leaking = [str(path) for path in tracked() if secret.search((REPOSITORY / path).read_bytes())]

    assert leaking == []


def test_no_large_file_is_tracked_by_git() -> None:
    large = [str(path) for path in tracked() if (REPOSITORY / path).stat().st_size > 500_000]

    assert large == []


def test_actions_are_pinned_by_commit_and_steps_are_make_targets_or_programs_of_the_repository() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    for path in (REPOSITORY / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                if "uses" in step:
                    assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), f"{path.name}: {step['uses']}"
                else:
                    program, argument = step["run"].split()[:2]
                    valid = argument in targets if program == "make" else (REPOSITORY / argument).is_file()
                    assert valid and "\n" not in step["run"].strip(), f"{path.name}: {step['run']}"


def test_ci_installs_every_program_that_a_test_needs() -> None:
    script = (REPOSITORY / ".ci" / "packages").read_text()
    folders = [REPOSITORY / name for name in ("tests", "lab", "benchmarks")]
    sources = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    needed = {package for text in sources for package in re.findall(r'need_program\("[^"]+", "([^"]+)"\)', text)}

    assert needed and {package for package in needed if not re.search(rf"\]={package}\b", script)} == set()


def test_no_stage_is_frozen_and_every_output_can_be_restored() -> None:
    """A frozen training stage silently reuses an old model; uncached and persistent outputs are not restored."""
    for name in PIPELINE:
        body = stage_body(name)
        assert not body.get("frozen"), name
        outputs = body.get("outs", [])
        assert bool(body.get("always_changed")) == (name == "enforce"), name
        assert bool(outputs) == (name != "enforce"), name
        assert all(isinstance(out, str) for out in outputs), f"{name}: outs with options: {outputs}"


def test_no_stage_depends_on_python_caches() -> None:
    """DVC hashes all files of a folder: the caches of a first run would make the stage run again."""
    folders = [str(dep) for name in PIPELINE for dep in stage_body(name)["deps"] if (REPOSITORY / str(dep)).is_dir()]
    caches = sorted({f"{folder}/__pycache__/module.cpython-311.pyc" for folder in folders})

    done = call(REPOSITORY, "dvc", "check-ignore", *caches)

    assert caches and done.stdout.split() == caches


@pytest.mark.parametrize("name", PIPELINE)
def test_a_stage_depends_on_every_module_that_it_imports(name: str) -> None:
    declared = [REPOSITORY / str(dep) for dep in stage_body(name)["deps"]]

    missing = {
        str(path.relative_to(REPOSITORY))
        for path in closure(REPOSITORY / "stages" / name / "stage.py")
        if not any(path == dep or dep in path.parents for dep in declared)
    }

    assert missing - NO_RESULT == set()


@pytest.mark.parametrize("name", PIPELINE)
def test_a_stage_prints_help(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{name}", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert f"stages.{name}" in done.stdout
    assert len(done.stdout.splitlines()) > 4, done.stdout


def test_the_agent_imports_nothing_of_the_pipeline() -> None:
    for path in (REPOSITORY / "device").rglob("*.py"):
        assert "import stages" not in path.read_text(), path
        assert "from stages" not in path.read_text(), path


OWN = {"edge-ai-workflow": REPOSITORY / "pyproject.toml", "edge-agent": REPOSITORY / "device" / "pyproject.toml"}
BUILDS, TESTS, SIGNS = "constraints.txt", "constraints-dev.txt", "constraints-signing.txt"


def requirements(name: str, extras: frozenset[str]) -> list[Requirement]:
    """Return a project's requirements with these extras: from pyproject.toml for this repository, else as installed."""
    if name in OWN:
        project = tomllib.loads(OWN[name].read_text())["project"]
        lines = [
            *project["dependencies"],
            *(line for extra in extras for line in project["optional-dependencies"][extra]),
        ]
    else:
        lines = metadata.requires(name) or []
    parsed = [Requirement(line) for line in lines]
    return [
        each for each in parsed if not each.marker or any(each.marker.evaluate({"extra": e}) for e in {"", *extras})
    ]


def installed(*roots: str) -> dict[str, str]:
    """Return the version of every distribution that the roots require here, by name, without the roots."""
    versions: dict[str, str] = {}
    visited: set[tuple[str, frozenset[str]]] = set()
    pending = [Requirement(root) for root in roots]
    while pending:
        current = pending.pop()
        name, extras = canonicalize_name(current.name), frozenset(current.extras)
        if (name, extras) not in visited:
            visited.add((name, extras))
            pending += requirements(name, extras)
            if name not in OWN:
                versions[name] = metadata.version(name)
    return versions


def pins(file: str) -> dict[str, str]:
    lines = [line.split("==") for line in (REPOSITORY / file).read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in lines}


def test_every_installed_library_is_pinned_in_the_right_file() -> None:
    """The requirements of the pipeline are pinned in one file, on which stages depend; those of tests in another."""
    builds = installed("edge-ai-workflow", "edge-agent[onnx,litert]")
    everything = installed("edge-ai-workflow[dev]", "edge-agent[onnx,litert]")

    assert set(pins(BUILDS)) == set(builds)
    assert set(pins(TESTS)) == set(everything) - set(builds)


def test_the_installed_versions_are_the_pinned_versions() -> None:
    """`make setup` restores them. With other versions, no clone could repeat a build of this one."""
    pinned = pins(BUILDS) | pins(TESTS)
    versions = installed("edge-ai-workflow[dev]", "edge-agent[onnx,litert]")

    assert {name: version for name, version in versions.items() if Version(version).public != pinned.get(name)} == {}


def test_every_installed_library_supports_the_oldest_python_of_a_supported_system() -> None:
    """Debian 12 has Python 3.11.2. A library may require a later one, and pip then reports a conflict of versions."""
    refused = {
        each.metadata["Name"]: each.metadata["Requires-Python"]
        for each in metadata.distributions()
        if OLDEST_PYTHON not in SpecifierSet(each.metadata["Requires-Python"] or "")
    }
    assert refused == {}


def test_the_signing_environment_has_exactly_its_pinned_libraries() -> None:
    python = REPOSITORY / ".venv-signing" / "bin" / "python"
    program = "from importlib.metadata import distributions as d; [print(x.name, x.version) for x in d()]"
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True)
    versions = {
        canonicalize_name(name): version for name, version in (line.split() for line in done.stdout.splitlines())
    }

    assert {name: version for name, version in versions.items() if name not in ("pip", "setuptools")} == pins(SIGNS)


def test_every_stage_whose_results_depend_on_libraries_depends_on_their_versions() -> None:
    dependent = {name for name in PIPELINE if BUILDS in stage_body(name)["deps"]}

    assert dependent == set(PIPELINE) - {"collect", "gate", "enforce"}
    assert not any(file in stage_body(name)["deps"] for name in PIPELINE for file in (TESTS, SIGNS))
