"""Simulate machines that are reached over SSH: OpenSSH servers of this user on local ports."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

WAIT_S = 10.0
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
CONFIGURATION = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
SetEnv HOME={folder}/home
"""


def missing() -> str:
    """Return what this machine lacks for an SSH server, with the fix; empty if nothing."""
    lacking = not shutil.which("sshd", path=PATH) or not shutil.which("ssh")
    return "no OpenSSH server; get it with: make system-packages" if lacking else ""


class Machine:
    """A simulated machine. `home` is the home folder of the user who logs in; the caller removes `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        for name in ("host_key", "key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
                check=True,
                stdin=subprocess.DEVNULL,
            )
        shutil.copy(folder / "key.pub", folder / "authorized_keys")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "sshd_config").write_text(CONFIGURATION.format(port=self.port, folder=folder))
        host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}\n")
        (folder / "known_hosts_empty").write_text("")
        self.process: subprocess.Popen[bytes] | None = None

    def variables(self, known_hosts: str = "known_hosts") -> dict[str, Any]:
        """Return inventory variables. `known_hosts_empty` as `known_hosts`: the client does not know this host key."""
        return {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": getpass.getuser(),
            "ansible_ssh_private_key_file": str(self.folder / "key"),
            "ansible_ssh_common_args": f"-oUserKnownHostsFile={self.folder / known_hosts} -oIdentitiesOnly=yes",
        }

    def start(self) -> None:
        """Start the server unless it already runs."""
        if self.process:
            return
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's privilege separation needs it, when run as root
        program = shutil.which("sshd", path=PATH)
        assert program
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "-D", "-e", "-f", str(self.folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
            )
        deadline = time.monotonic() + WAIT_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()

    def kill(self) -> None:
        """Kill the server and every process that was started through it with SIGKILL, as a power cut would."""
        if self.process is None:
            return
        processes = [psutil.Process(self.process.pid)]
        processes += processes[0].children(recursive=True)
        for each in processes:
            if each.is_running():
                each.kill()
        psutil.wait_procs(processes, WAIT_S)
        self.process.wait(WAIT_S)
        self.process = None
