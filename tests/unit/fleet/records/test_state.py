"""fleet.records.state: the process that owns a rollout."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fleet.records.state import NOBODY, owner_of


def test_a_later_process_with_the_same_id_is_another_one() -> None:
    me = owner_of(os.getpid())

    assert me.is_alive()
    assert not replace(me, started=me.started - 60).is_alive()
    assert not replace(me, boot="of another start of the machine").is_alive()
    assert not NOBODY.is_alive()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no Linux, no /proc to ask")
def test_setting_the_clock_does_not_change_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    me = owner_of(os.getpid())
    began = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: began(process) + 3600)

    assert me.is_alive()


def test_the_owner_is_the_calling_playbook_and_not_a_shell_that_names_it(tmp_path: Path) -> None:
    program = tmp_path / "ansible-playbook"
    program.write_text(
        "import subprocess, sys, os\n"
        "code = 'from fleet.records.state import owner; print(owner().pid)'\n"
        "print(os.getpid(), subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout)\n"
    )
    shell = ["bash", "-c", f"{sys.executable} {program}; true ansible-playbook"]

    pid, owner = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split()

    assert pid == owner
