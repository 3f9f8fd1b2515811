"""Devices for `make bench-fleet`: of each only what a rollout meets, an sshd and an agent, in namespaces of its own.

A lab's device (lab) boots a systemd; here pid 1 is the sshd, so that hundreds fit on one machine. Disk, address,
host key, user, and the folder and the lock by which what a killed run left is found and removed, are the lab's.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.accounting import JOIN
from lab import Device, Lab, LabError, cgroup, network
from lab.device import EXEC_PATH
from lab.root import USER

START_S = 60.0
# All that a rollout needs of /dev is this machine's. The network's other end arrives between the two lines of output.
START = """\
set -eu
folder=$1; lower=$2; address=$3; name=$4; shift 4
while [ "$1" != -- ]; do echo 0 >"$1"; shift; done
hostname "$name"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$folder/merged"
mount -t proc proc "$folder/merged/proc"
mount --rbind /dev "$folder/merged/dev"
mount -t tmpfs -o mode=755 tmpfs "$folder/merged/run"
mkdir "$folder/merged/run/sshd"
echo ready
read -r plugged
ip address add "$address" dev host0
ip link set host0 up
ip link set lo up
exec chroot "$folder/merged" /usr/sbin/sshd -D -e
"""
NAMESPACES = ("--mount", "--net", "--uts", "--ipc", "--pid")
ENTER = ("unshare", *NAMESPACES, "--fork", "--kill-child", "--propagation=private", "sh", "-c", START, "device")


class LightDevice(Device):
    """As lab.Device, without a systemd. `start`: a command that its user runs when it is plugged in, or none."""

    start: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()  # files that take the processes into groups besides the lab's own

    def boot(self) -> None:
        if self.on:
            raise LabError(self.name, "it is on", "a device that is off", "unplug() first")
        lower = ":".join(map(str, self.lower))
        with (self.folder / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                [*ENTER, str(self.folder), lower, str(self.interface), self.name, *self._groups(), "--"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                env={"PATH": EXEC_PATH, "LANG": "C.UTF-8"},
                start_new_session=True,  # ^C is for the lab, which ends its devices in order
            )

    def wait(self, limit_s: float = START_S) -> None:
        """Until its sshd answers, and `start` has ended. Raises LabError, the device unplugged then."""
        process = self._nspawn
        assert process and process.stdin and process.stdout, "boot() first"
        try:
            if process.stdout.readline() != b"ready\n":
                raise self._failed("ended before it was ready")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            self.leader = int(children[0])
            host = ["link", "add", self.link, "type", "veth", "peer", "name", "host0", "netns", str(process.pid)]
            network.ip(*host)
            network.ip("link", "set", self.link, "master", self.bridge.name, "up")
            process.stdin.write(b"plugged\n")
            process.stdin.close()
            self._answering(time.monotonic() + limit_s)
            if self.start:
                self.exec("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *self.start)
        except BaseException:
            self.unplug()
            raise

    def _answering(self, deadline: float) -> None:
        """sshd announces nothing: it is asked until it says who it is."""
        while True:
            try:
                with socket.create_connection((self.address, 22), 1.0) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            if time.monotonic() > deadline or self._nspawn is None or self._nspawn.poll() is not None:
                raise self._failed("sshd does not answer")
            time.sleep(0.01)  # between two questions

    def exec(
        self, *command: str, check: bool = True, stdin: bytes = b"", timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command as root in the device, without its network. Raises LabError where it fails and `check`."""
        if self.leader is None:
            raise LabError(self.name, "it is off", "a device that is on", "plug() first")
        enter = ["nsenter", f"--target={self.leader}", *NAMESPACES, "--root", "--wd"]
        done = subprocess.run(
            [*JOIN, *self._groups(), "--", *enter, "--", *command],
            capture_output=True,
            input=stdin,
            timeout=timeout_s,
            env={"PATH": EXEC_PATH, "HOME": "/", "LANG": "C.UTF-8"},
            check=False,
        )
        result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        if check and result.returncode:
            found = f"exit code {result.returncode}: {(result.stderr or result.stdout).strip()}"
            raise LabError(f"{self.name}: {' '.join(command)}", found, "exit code 0", "see the message")
        return result

    def unplug(self) -> None:
        """As the lab's; the cable first, which else goes by itself at a moment of its own."""
        if self.on and network.exists(self.link):
            network.ip("link", "delete", self.link)
        super().unplug()

    def _groups(self) -> list[str]:
        """What every process of the device is written to."""
        return [*map(str, cgroup.create(self.group)), *self.accounts]

    def bring(self, source: Path, folder: str) -> None:
        """A copy of a folder of this machine, its user's, on a device that is off."""
        assert not self.on, "an overlay's upper folder is not changed below a mounted one"
        to = self.files / folder
        for parent in reversed(to.relative_to(self.files).parents):
            (self.files / parent).mkdir(exist_ok=True, mode=0o755)
        shutil.copytree(source, to, symlinks=True, dirs_exist_ok=True)
        uid = 1000  # of USER, the first that a Debian root makes
        for path in [to.parent, to, *to.rglob("*")]:
            os.chown(path, uid, uid, follow_symlinks=False)


class LightLab(Lab):
    """`with LightLab(50, layer=agents.layer(), plugged=False) as lab:`"""

    kind = LightDevice
    devices: list[LightDevice]  # type: ignore[assignment]  # of `kind`, which Lab makes them of

    def plug(self, devices: Iterable[LightDevice], at_once: int = 4) -> None:
        """Starts them, so many at a time."""
        with ThreadPoolExecutor(at_once) as pool:
            for _ in pool.map(LightDevice.plug, devices):
                pass
