"""Light devices for `make bench-fleet`: each has only an sshd and an agent, in separate namespaces.

A lab's device boots systemd. Here process 1 is sshd, so that hundreds of devices fit on one machine. The lab provides
each device's disk, address, host key and user. It also provides the folder and the lock with which a later run finds
and removes a killed run.
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
# A rollout can use this machine's /dev. The network link is added after the script prints `ready`, before its input.
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
    """A lab.Device without systemd. `start`: a command that the device's user runs after the boot; may be empty."""

    start: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()  # cgroup.procs files of further cgroups for the device's processes

    def boot(self) -> None:
        if self.on:
            raise LabError(self.name, "the device is on", "a device that is off", "call unplug() first")
        lower = ":".join(map(str, self.lower))
        with (self.folder / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                [*ENTER, str(self.folder), lower, str(self.interface), self.name, *self._groups(), "--"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                env={"PATH": EXEC_PATH, "LANG": "C.UTF-8"},
                start_new_session=True,  # Ctrl-C must reach only the lab, which stops its devices in order
            )

    def wait(self, limit_s: float = START_S) -> None:
        """Wait until sshd answers and `start` has ended. On failure, unplug the device and raise LabError."""
        process = self._nspawn
        assert process and process.stdin and process.stdout, "call boot() first"
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
            self._wait_for_sshd(time.monotonic() + limit_s)
            if self.start:
                self.exec("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *self.start)
        except BaseException:
            self.unplug()
            raise

    def _wait_for_sshd(self, deadline: float) -> None:
        """Connect repeatedly until sshd sends its greeting, because sshd does not report that it is ready."""
        while True:
            try:
                with socket.create_connection((self.address, 22), 1.0) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            if time.monotonic() > deadline or self._nspawn is None or self._nspawn.poll() is not None:
                raise self._failed("sshd does not answer")
            time.sleep(0.01)  # between two attempts

    def exec(
        self, *command: str, check: bool = True, stdin: bytes = b"", timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root on the device without using its network.

        Args:
            command: Program and arguments.
            check: Whether a failure raises LabError.
            stdin: Standard input.
            timeout_s: Time limit in seconds.
        """
        if self.leader is None:
            raise LabError(self.name, "the device is off", "a device that is on", "call plug() first")
        enter = ["nsenter", f"--target={self.leader}", *NAMESPACES, "--root", "--wd"]
        process = subprocess.run(
            [*JOIN, *self._groups(), "--", *enter, "--", *command],
            capture_output=True,
            input=stdin,
            timeout=timeout_s,
            env={"PATH": EXEC_PATH, "HOME": "/", "LANG": "C.UTF-8"},
            check=False,
        )
        result = subprocess.CompletedProcess(
            process.args, process.returncode, process.stdout.decode(), process.stderr.decode()
        )
        if check and result.returncode:
            failure = f"exit code {result.returncode}: {(result.stderr or result.stdout).strip()}"
            raise LabError(
                f"{self.name}: {' '.join(command)}", failure, "exit code 0", "read the output of the command"
            )
        return result

    def unplug(self) -> None:
        """Cut the power. Remove the network link first, because the kernel would remove it at an unknown time."""
        if self.on:
            network.remove_link(self.link)
        super().unplug()

    def _groups(self) -> list[str]:
        """Return the cgroup.procs files that every process of the device joins."""
        return [*map(str, cgroup.create(self.group)), *self.accounts]

    def copy_folder(self, source: Path, folder: str) -> None:
        """Copy a folder of this machine to a device that is off; its user owns the copy."""
        assert not self.on, "the upper folder of a mounted overlay must not be changed"
        target = self.files / folder
        for parent in reversed(target.relative_to(self.files).parents):
            (self.files / parent).mkdir(exist_ok=True, mode=0o755)
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        uid = 1000  # of USER, the first user created in a Debian root
        for path in [target.parent, target, *target.rglob("*")]:
            os.chown(path, uid, uid, follow_symlinks=False)


class LightLab(Lab):
    """A lab of light devices: `with LightLab(50, layer=agents.layer(), plugged=False) as lab:`."""

    kind = LightDevice
    devices: list[LightDevice]  # type: ignore[assignment]  # Lab creates devices of class `kind`

    def plug(self, devices: Iterable[LightDevice], at_once: int = 4) -> None:
        """Boot devices, at most `at_once` at a time."""
        with ThreadPoolExecutor(at_once) as pool:
            for _ in pool.map(LightDevice.plug, devices):
                pass
