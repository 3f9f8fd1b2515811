"""The rollout role's `agent_command`, over the local connection: one exchange, and what goes wrong in it."""

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
SAYS = ["sh", "-c", 'cat "$1"/pushed/* | wc -c; echo aside >&2', "says"]


def ask(tmp_path: Path, **arguments: Any) -> dict[str, Any]:
    """What the task returns on one host; `failed`: whether it counts as failed."""
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
def test_it_brings_runs_and_removes(tmp_path: Path, into: Path, size: int) -> None:
    pushed = archive(tmp_path, size)

    said = ask(
        tmp_path, argv=[*SAYS, str(into)], archive=str(pushed), into=str(into), remove=str(into / "pushed/content")
    )

    assert (said["failed"], said["rc"], said["stdout"].strip()) == (False, 0, str(size))
    assert said["stderr"].strip() == "aside"
    assert list(into.iterdir()) == [into / "pushed"] and not list((into / "pushed").iterdir())
    assert not list((tmp_path / "remote").glob("*/*")), "nothing stays where it was copied to"


@pytest.mark.parametrize("size", [100_000, 17_000_000], ids=["sent along", "copied first"])
def test_a_command_that_hangs_leaves_no_archive(tmp_path: Path, into: Path, size: int) -> None:
    pushed = archive(tmp_path, size)

    said = ask(tmp_path, argv=["sleep", "60"], archive=str(pushed), into=str(into), limit_s=3)

    assert said["failed"] and said["unreachable"]
    assert list(into.iterdir()) == [into / "pushed"]
    assert not list((tmp_path / "remote").glob("*/*"))


def test_what_cannot_be_unpacked_runs_nothing_and_says_why(tmp_path: Path, into: Path) -> None:
    """Larger than a pipe: its rest has to be read, or it would look like a lost connection."""
    spoilt = tmp_path / "push.tar"
    spoilt.write_bytes(b"no archive" * 500_000)
    ran = into / "ran"

    said = ask(tmp_path, argv=["touch", str(ran)], archive=str(spoilt), into=str(into), remove=str(into / "pushed"))

    assert said["failed"] and said["rc"] != 0
    assert "tar" in said["stderr"] and not ran.exists()


def test_a_command_that_fails(tmp_path: Path) -> None:
    said = ask(tmp_path, argv=["sh", "-c", "echo '{}'; exit 6"])

    assert (said["failed"], said["rc"], said["stdout"].strip()) == (True, 6, "{}")
