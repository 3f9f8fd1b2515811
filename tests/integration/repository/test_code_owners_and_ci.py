"""Code owners and the permissions of CI, as the files in .github/ declare them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.releases import repository, signing
from fleet.releases.signing import SigningPolicy
from tests.support.agent.bundles import bundle
from tests.support.paths import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
TEAMS = {f"@your-org/{name}" for name in ("maintainers", "ml", "release-managers", "fleet-operators")}
PLACES = {
    "stages/train/stage.py": "ml",
    "tasks/digits/params.yaml": "ml",
    "inventory/example/hosts.yml": "fleet-operators",
}
PLACES |= {"releases/metadata/1.root.json": "release-managers", "fleet/releases/signing.py": "release-managers"}
PLACES |= dict.fromkeys(
    ("fleet/releases/sign_worker.py", "fleet/cli/publish.py", "fleet/rollout/payload.py"), "release-managers"
)
PLACES |= dict.fromkeys(
    ("fleet/releases/policy.schema.json", "constraints-signing.txt", ".ci/sign"), "release-managers"
)
PLACES |= {
    ".github/CODEOWNERS": "maintainers",
    "README.md": "maintainers",
    "fleet/rollout/controller.py": "maintainers",
}


def rules() -> list[tuple[str, list[str]]]:
    lines = (REPOSITORY / ".github/CODEOWNERS").read_text().splitlines()
    return [(words[0], words[1:]) for words in map(str.split, lines) if words and not words[0].startswith("#")]


def owners(path: str) -> list[str]:
    """Return the owners in the last line that matches. The only patterns are `*`, `/file` and `/folder/`."""
    owning_teams: list[str] = []
    for pattern, teams in rules():
        file_or_folder = pattern.lstrip("/")
        if (
            pattern == "*"
            or path == file_or_folder
            or (file_or_folder.endswith("/") and path.startswith(file_or_folder))
        ):
            owning_teams = teams
    return owning_teams


def test_every_path_exists_and_every_team_is_known() -> None:
    for pattern, teams in rules():
        assert pattern == "*" or (REPOSITORY / pattern.lstrip("/")).exists(), pattern
        assert teams and set(teams) <= TEAMS, pattern
        assert pattern == "*" or (REPOSITORY / pattern.lstrip("/")).is_dir() == pattern.endswith("/"), pattern


def test_every_top_level_folder_has_an_owner() -> None:
    """A new folder must not fall to the owners of `*`."""
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    folders = {f"/{line.partition('/')[0]}/" for line in done.stdout.splitlines() if "/" in line}

    assert folders - {pattern for pattern, _ in rules()} == set()


@pytest.mark.parametrize(("path", "team"), PLACES.items())
def test_a_path_is_owned_by_its_team(path: str, team: str) -> None:
    assert owners(path) == [f"@your-org/{team}"]


def jobs(file: Path) -> dict[str, dict[str, Any]]:
    parsed: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())["jobs"]
    return parsed


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: str(file.name))
def test_an_action_is_pinned_to_the_same_commit_in_every_workflow(file: Path) -> None:
    used = re.findall(r"uses: ([\w/-]+)@(\S+)(.*)", file.read_text())

    assert used
    for action, revision, comment in used:
        assert re.fullmatch("[0-9a-f]{40}", revision) and re.match(r"  # v\d", comment), action
        everywhere = {each for other in WORKFLOWS for each in re.findall(f"{action}@(\\S+)", other.read_text())}
        assert everywhere == {revision}, action


def test_only_the_signing_job_has_the_token_and_it_needs_approval() -> None:
    """Training runs third-party code, so the job that signs must not train."""
    for file in WORKFLOWS:
        workflow = yaml.safe_load(file.read_text())
        for name, job in jobs(file).items():
            rights = {**workflow["permissions"], **job.get("permissions", {})}
            commands = " ".join(str(step.get("run", "")) for step in job["steps"])
            assert set(rights.values()) <= {"read"} or rights == {"contents": "read", "id-token": "write"}, name
            if "id-token" in rights:
                assert job["environment"] == "release"
                assert re.findall(r"make \S+", commands) == ["make setup-signing"] and ".venv/" not in commands
            assert "secrets." not in commands, "the targets key must not be a secret of CI"


def test_a_new_repository_needs_two_of_three_root_keys() -> None:
    """Check that a new repository has the key numbers of docs/explanation/people.md."""

    assert (repository.ROOT_KEYS, repository.ROOT_THRESHOLD) == (3, 2)


def test_signing_in_ci_needs_only_the_signing_environment(tmp_path: Path) -> None:
    """Without the token of a CI system it refuses after unpacking; with a policy that pins a key, before."""
    shutil.copytree(REPOSITORY / ".ci", tmp_path / ".ci")
    for name in ("fleet/releases", "releases"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(REPOSITORY / "fleet/releases/sign_worker.py", tmp_path / "fleet/releases")
    archive = bundle(tmp_path / "built").archive
    policy = SigningPolicy(
        identity="https://github.com/o/r/.github/workflows/release.yml@refs/heads/main", issuer="https://o.t"
    )
    policy.save(tmp_path / "releases/policy.json")

    def signing_error() -> str:
        command = [str(signing.interpreter()), str(tmp_path / ".ci/sign"), str(archive)]
        done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
        assert done.returncode and "Traceback" not in done.stderr and not Path(f"{archive}.sig").exists()
        return done.stderr

    assert f"{archive}: sign: refused" in signing_error()
    SigningPolicy(public_key="PEM").save(tmp_path / "releases/policy.json")
    assert "a builder's key" in signing_error()
    planned = subprocess.run(
        ["make", "-nB", "setup-signing", "PYTHON=python3"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "constraints-signing.txt" in planned.stdout and ".venv/" not in planned.stdout
