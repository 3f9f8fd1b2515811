"""Every action of the workflows is pinned to a commit whose runtime GitHub's runners still support."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.paths import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
LIST = yaml.safe_load((REPOSITORY / ".github/action-runtimes.yml").read_text())
USE = re.compile(r"uses: ([\w./-]+)@(\S+)  # (\S+)")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: str(path.name))
def test_every_action_is_listed_with_its_commit_and_a_supported_runtime(workflow: Path) -> None:
    uses = USE.findall(workflow.read_text())

    assert len(uses) == workflow.read_text().count("uses:") > 0
    for action, commit, release in uses:
        listed = LIST["actions"][action]
        assert (listed["commit"], listed["release"]) == (commit, release), action
        assert listed["runtime"] not in LIST["retired"], f"{action} runs on {listed['runtime']}, which is retired"


def test_every_listed_action_is_used() -> None:
    used = {action for workflow in WORKFLOWS for action, _, _ in USE.findall(workflow.read_text())}

    assert set(LIST["actions"]) == used


def test_every_push_and_every_pull_request_is_tested() -> None:
    # YAML 1.1 reads the key `on` as true.
    assert yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())[True] == {
        "push": None,
        "pull_request": None,
    }


def test_the_pre_commit_hooks_are_the_targets_of_make_lint() -> None:
    hooks = [
        hook
        for repository in yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in (repository["hooks"] if repository["repo"] == "local" else [repository])
    ]
    (targets,) = re.findall(r"^lint: (.+?)  ##", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)

    assert [hook["entry"] for hook in hooks] == [f"make {target}" for target in targets.split()]
    assert {hook["language"] for hook in hooks} == {"system"}, "nothing is downloaded"
