"""The rollout role's `agent_command` runs one command per exchange over the local connection, and reports failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow  # each starts ansible-playbook

PLUGINS = REPOSITORY / "playbooks/roles/rollout/action_plugins"
COUNT_BYTES = ["sh", "-c", 'cat "$1"/pushed/* | wc -c; echo aside >&2', "count"]


def run_agent_command(tmp_path: Path, **arguments: Any) -> dict[str, Any]:
    """Run the task on one host and return its result, with `failed` for whether Ansible counts it as failed."""
    arguments = {"limit_s": 60, **arguments}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ansible", "adhoc", "device", "--inventory", "device,", "--connection", "local"),
            *("--module-name", "agent_command", "--args", json.dumps(arguments)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **os.environ,
            "ANSIBLE_ACTION_PLUGINS": str(PLUGINS),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        },
        check=False,
    )
    return {**json.loads(done.stdout.partition("=>")[2]), "failed": done.returncode != 0}


def archive(folder: Path, size: int) -> Path:
    content, file = folder / "content", folder / "push.tar"
    content.write_bytes(b"x" * size)
    with tarfile.open(file, "w") as tar:
        tar.add(content, "pushed/content")
    return file


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "with a space"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("size", [100_000, 17_000_000], ids=["sent along", "copied first"])
def test_it_copies_the_archive_runs_the_command_and_removes_the_content(tmp_path: Path, into: Path, size: int) -> None:
    pushed = archive(tmp_path, size)

    result = run_agent_command(
        tmp_path,
        argv=[*COUNT_BYTES, str(into)],
        archive=str(pushed),
        into=str(into),
        remove=str(into / "pushed/content"),
    )

    assert (result["failed"], result["rc"], result["stdout"].strip()) == (False, 0, str(size))
    assert result["stderr"].strip() == "aside"
    assert list(into.iterdir()) == [into / "pushed"] and not list((into / "pushed").iterdir())
    assert not list((tmp_path / "remote").glob("*/*")), "no temporary copy remains"


@pytest.mark.parametrize("size", [100_000, 17_000_000], ids=["sent along", "copied first"])
def test_a_command_that_hangs_leaves_no_archive(tmp_path: Path, into: Path, size: int) -> None:
    pushed = archive(tmp_path, size)

    result = run_agent_command(tmp_path, argv=["sleep", "60"], archive=str(pushed), into=str(into), limit_s=3)

    assert result["failed"] and result["unreachable"]
    assert list(into.iterdir()) == [into / "pushed"]
    assert not list((tmp_path / "remote").glob("*/*"))


def test_after_an_invalid_archive_the_command_does_not_run_and_the_reason_is_reported(
    tmp_path: Path, into: Path
) -> None:
    """The archive exceeds a pipe's buffer. Unless it is read to its end, the failure looks like a lost connection."""
    invalid = tmp_path / "push.tar"
    invalid.write_bytes(b"no archive" * 500_000)
    marker = into / "marker"

    result = run_agent_command(
        tmp_path, argv=["touch", str(marker)], archive=str(invalid), into=str(into), remove=str(into / "pushed")
    )

    assert result["failed"] and result["rc"] != 0
    assert "tar" in result["stderr"] and not marker.exists()


def test_a_failed_command_returns_its_exit_code_and_output(tmp_path: Path) -> None:
    result = run_agent_command(tmp_path, argv=["sh", "-c", "echo '{}'; exit 6"])

    assert (result["failed"], result["rc"], result["stdout"].strip()) == (True, 6, "{}")
