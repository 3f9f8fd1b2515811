"""Who reviews what, and what CI may do: .github/ as far as it can be read without GitHub."""

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
    """Of the last line that matches: `*`, `/file` or `/folder/`, which is all that is written there."""
    found: list[str] = []
    for pattern, teams in rules():
        whole = pattern.lstrip("/")
        if pattern == "*" or path == whole or (whole.endswith("/") and path.startswith(whole)):
            found = teams
    return found


def test_every_path_is_there_and_every_team_known() -> None:
    for pattern, teams in rules():
        assert pattern == "*" or (REPOSITORY / pattern.lstrip("/")).exists(), pattern
        assert teams and set(teams) <= TEAMS, pattern
        assert pattern == "*" or (REPOSITORY / pattern.lstrip("/")).is_dir() == pattern.endswith("/"), pattern


def test_every_folder_is_named() -> None:
    """A new one is not left to whoever owns the rest."""
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    folders = {f"/{line.partition('/')[0]}/" for line in done.stdout.splitlines() if "/" in line}

    assert folders - {pattern for pattern, _ in rules()} == set()


@pytest.mark.parametrize(("path", "team"), PLACES.items())
def test_who_owns_what(path: str, team: str) -> None:
    assert owners(path) == [f"@your-org/{team}"]


def jobs(file: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())["jobs"]
    return found


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: str(file.name))
def test_actions_are_pinned_by_digest_the_same_everywhere(file: Path) -> None:
    used = re.findall(r"uses: ([\w/-]+)@(\S+)(.*)", file.read_text())

    assert used
    for action, revision, comment in used:
        assert re.fullmatch("[0-9a-f]{40}", revision) and re.match(r"  # v\d", comment), action
        everywhere = {each for other in WORKFLOWS for each in re.findall(f"{action}@(\\S+)", other.read_text())}
        assert everywhere == {revision}, action


def test_only_the_job_that_signs_has_the_token_and_a_person_lets_it_begin() -> None:
    """What trains runs other people's code; what signs does not train."""
    for file in WORKFLOWS:
        told = yaml.safe_load(file.read_text())
        for name, job in jobs(file).items():
            rights = {**told["permissions"], **job.get("permissions", {})}
            commands = " ".join(str(step.get("run", "")) for step in job["steps"])
            assert set(rights.values()) <= {"read"} or rights == {"contents": "read", "id-token": "write"}, name
            if "id-token" in rights:
                assert job["environment"] == "release"
                assert re.findall(r"make \S+", commands) == ["make setup-signing"] and ".venv/" not in commands
            assert "secrets." not in commands, "the targets key has no place there"


def test_root_takes_two_of_three() -> None:
    """What docs/explanation/people.md says of it is what a new repository gets."""

    assert (repository.ROOT_KEYS, repository.ROOT_THRESHOLD) == (3, 2)


def test_what_signs_in_ci_needs_the_signing_environment_alone(tmp_path: Path) -> None:
    """Without a CI system's token it refuses after it has unpacked; with a key's policy before."""
    shutil.copytree(REPOSITORY / ".ci", tmp_path / ".ci")
    for name in ("fleet/releases", "releases"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(REPOSITORY / "fleet/releases/sign_worker.py", tmp_path / "fleet/releases")
    archive = bundle(tmp_path / "built").archive
    policy = SigningPolicy(
        identity="https://github.com/o/r/.github/workflows/release.yml@refs/heads/main", issuer="https://o.t"
    )
    policy.save(tmp_path / "releases/policy.json")

    def said() -> str:
        command = [str(signing.interpreter()), str(tmp_path / ".ci/sign"), str(archive)]
        done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
        assert done.returncode and "Traceback" not in done.stderr and not Path(f"{archive}.sig").exists()
        return done.stderr

    assert f"{archive}: sign: refused" in said()
    SigningPolicy(public_key="PEM").save(tmp_path / "releases/policy.json")
    assert "pins a key" in said()
    planned = subprocess.run(
        ["make", "-nB", "setup-signing", "PYTHON=python3"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "constraints-signing.txt" in planned.stdout and ".venv/" not in planned.stdout
