"""Runs of ansible-playbook with small playbooks: their files, and their end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from fleet.execution import playbook
from fleet.execution.playbook import PlaybookRun, run_folder

pytestmark = pytest.mark.slow  # each starts Ansible

SECRET = "correct horse battery staple"  # noqa: S105  (no file may contain it; it opens nothing)
END_S = 20.0
PROGRAM = """\
import pathlib, sys
from fleet.execution import playbook
folder = playbook.HERE = pathlib.Path(sys.argv[1])
playbook.PlaybookRun("own", folder / "hosts.yml", folder / "rollouts", {})
"""


def write_playbook(folder: Path, *tasks: Any) -> Path:
    """Write a playbook with these tasks for one device, which is this machine."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (folder / "playbooks").mkdir()
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"a": local}}}))
    play = {"hosts": "all", "gather_facts": False, "tasks": list(tasks)}
    (folder / "playbooks/own.yml").write_text(yaml.safe_dump([play]))
    return folder


def test_the_environment_is_not_written_to_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_KEY_PASSPHRASE_X", SECRET)
    seek = f'test -n "$FLEET_KEY_PASSPHRASE_X" || exit 2; grep -rl "$FLEET_KEY_PASSPHRASE_X" {tmp_path}/rollouts'
    task = {"ansible.builtin.shell": seek, "register": "found", "failed_when": "found.rc != 1"}
    monkeypatch.setattr(playbook, "HERE", write_playbook(tmp_path, {"ansible.builtin.ping": {}}, task))

    run = PlaybookRun("own", tmp_path / "hosts.yml", tmp_path / "rollouts", {"x": 1})

    files = [path for path in (tmp_path / "rollouts").rglob("*") if path.is_file()]
    assert run.runner.status == "successful", "it has the secret, and finds it in no file while it runs"
    assert "stdout" in {path.name for path in files}
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.skipif(sys.platform != "linux", reason="a process that ends with its parent is Linux's")
def test_ansible_ends_with_a_rollout_that_is_killed(tmp_path: Path) -> None:
    for name in ("started", "never"):
        os.mkfifo(tmp_path / name)
    task = {"ansible.builtin.shell": f"echo $$ >{tmp_path}/started; read nothing <{tmp_path}/never"}
    program = [sys.executable, "-c", PROGRAM, str(write_playbook(tmp_path, task))]
    run = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stuck = psutil.Process(int((tmp_path / "started").read_text()))  # waits until the task is running
    processes = [*psutil.Process(run.pid).children(recursive=True)]
    assert stuck in processes and any("ansible-playbook" in " ".join(each.cmdline()) for each in processes)

    run.kill()
    run.wait()

    _, alive = psutil.wait_procs(processes, END_S)
    for each in alive:
        each.kill()
    assert not alive


def test_a_rollback_needs_no_space_beside_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "rollouts"
    root.write_text("")

    folder = run_folder(root, "rollback")

    assert folder.is_dir() and str(folder) in capsys.readouterr().err
    folder.rmdir()
    with pytest.raises(OSError, match="Not a directory"):
        run_folder(root, "rollout")
