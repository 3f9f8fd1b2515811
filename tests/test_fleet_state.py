"""fleet.state: whose a rollout is."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil

from fleet.state import Owner

ME = psutil.Process()


def test_a_process_with_the_same_number_is_another_one() -> None:
    assert Owner(socket.gethostname(), ME.pid, ME.create_time()).is_alive()
    assert not Owner(socket.gethostname(), ME.pid, ME.create_time() - 60).is_alive()


def test_the_owner_is_the_playbook_that_called_and_no_shell_that_names_it(tmp_path: Path) -> None:
    program = tmp_path / "ansible-playbook"
    program.write_text(
        "import subprocess, sys, os\n"
        "code = 'from fleet.state import owner; print(owner().pid)'\n"
        "print(os.getpid(), subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout)\n"
    )
    shell = ["bash", "-c", f"{sys.executable} {program}; true ansible-playbook"]

    pid, owner = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split()

    assert pid == owner
