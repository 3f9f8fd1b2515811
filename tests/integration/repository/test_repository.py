"""What must be true of the repository itself."""

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
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.imports import closure
from tests.support.stages.clone import REPOSITORY, call

# Modules that change no result: parameters are tracked by DVC by value; the others carry messages, bytes, --help.
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


def test_nothing_large_is_tracked_by_git() -> None:
    large = [str(path) for path in tracked() if (REPOSITORY / path).stat().st_size > 500_000]

    assert large == []


def test_actions_are_pinned_by_commit_and_steps_are_make_targets_or_programs_of_ours() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    for path in (REPOSITORY / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                if "uses" in step:
                    assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), f"{path.name}: {step['uses']}"
                else:
                    program, argument = step["run"].split()[:2]
                    known = argument in targets if program == "make" else (REPOSITORY / argument).is_file()
                    assert known and "\n" not in step["run"].strip(), f"{path.name}: {step['run']}"


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
        assert not body.get("always_changed"), name
        assert all(isinstance(out, str) for out in body["outs"]), f"{name}: outs with options: {body['outs']}"


def test_no_stage_depends_on_what_python_caches() -> None:
    """DVC hashes a folder with all that is in it: a first run would leave caches that make the next one run again."""
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
def test_a_stage_explains_itself(name: str) -> None:
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
    """What a project asks for here with these extras: ours as its file says now, others as installed."""
    if name in OWN:
        project = tomllib.loads(OWN[name].read_text())["project"]
        lines = [
            *project["dependencies"],
            *(line for extra in extras for line in project["optional-dependencies"][extra]),
        ]
    else:
        lines = metadata.requires(name) or []
    asked = [Requirement(line) for line in lines]
    return [each for each in asked if not each.marker or any(each.marker.evaluate({"extra": e}) for e in {"", *extras})]


def installed(*roots: str) -> dict[str, str]:
    """Version by name of every distribution that the roots bring here, themselves left out."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(root) for root in roots]
    while todo:
        current = todo.pop()
        name, extras = canonicalize_name(current.name), frozenset(current.extras)
        if (name, extras) not in seen:
            seen.add((name, extras))
            todo += requirements(name, extras)
            if name not in OWN:
                versions[name] = metadata.version(name)
    return versions


def pins(file: str) -> dict[str, str]:
    lines = [line.split("==") for line in (REPOSITORY / file).read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in lines}


def test_everything_that_is_installed_is_pinned_where_it_belongs() -> None:
    """The pipeline's own closure in one file, which stages depend on; what tests bring besides in the other."""
    builds = installed("edge-ai-workflow", "edge-agent[onnx,litert]")
    everything = installed("edge-ai-workflow[dev]", "edge-agent[onnx,litert]")

    assert set(pins(BUILDS)) == set(builds)
    assert set(pins(TESTS)) == set(everything) - set(builds)


def test_what_is_installed_is_what_is_pinned() -> None:
    """`make setup` brings it back: another version here would build what no clone can repeat."""
    wanted = pins(BUILDS) | pins(TESTS)
    found = installed("edge-ai-workflow[dev]", "edge-agent[onnx,litert]")

    assert {name: version for name, version in found.items() if Version(version).public != wanted.get(name)} == {}


def test_what_signs_is_what_is_pinned_and_loads_no_training_library() -> None:
    python = REPOSITORY / ".venv-signing" / "bin" / "python"
    told = "from importlib.metadata import distributions as d; [print(x.name, x.version) for x in d()]"
    done = subprocess.run([python, "-I", "-c", told], capture_output=True, text=True, check=True)
    found = {canonicalize_name(name): version for name, version in (line.split() for line in done.stdout.splitlines())}

    assert {name: version for name, version in found.items() if name not in ("pip", "setuptools")} == pins(SIGNS)


def test_new_libraries_run_again_every_stage_whose_results_they_decide() -> None:
    dependent = {name for name in PIPELINE if BUILDS in stage_body(name)["deps"]}

    assert dependent == set(PIPELINE) - {"collect", "gate"}
    assert not any(file in stage_body(name)["deps"] for name in PIPELINE for file in (TESTS, SIGNS))
