"""A device of a lab: Debian on an overlay of the shared root, booted in systemd-nspawn, connected to the lab's bridge.

For an aarch64 device, a binfmt_misc handler is registered, so that the kernel runs its programs in an emulator.
"""

from __future__ import annotations

import os
import platform
import selectors
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab import cgroup, emulation, network
from lab.emulation import ALONE
from lab.errors import LabError
from lab.network import Bridge
from lab.root import USER

BOOT_S = 180.0
EXEC_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The mounts are in a separate namespace, so the kernel removes them after the device's last process, however it ends.
# Arguments: folder, lower folders, cgroup.procs files, --, arguments of nspawn.
START = """\
folder=$1; lower=$2; shift 2
while [ "$1" != -- ]; do echo $$ >"$1"; shift; done
shift
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$folder/merged"
exec systemd-nspawn "$@"
"""


class Device:
    """A device of a lab. Lab creates the device; it is off until `plug` is called.

    `name`: host name. `address`: IPv4 address. `architecture`: as printed by `uname -m`. `handler`: name of the
    binfmt_misc handler that emulates the device; empty if it is not emulated.
    """

    def __init__(
        self, lab: str, index: int, folder: Path, lower: Sequence[Path], bridge: Bridge, arm64: bool = False
    ) -> None:
        """Describe a device; `seed` creates its files.

        Args:
            lab: Id of the lab.
            index: Number of the device, from 0.
            folder: Folder of its files on this machine.
            lower: Lower folders of its overlay, the top one first.
            bridge: The lab's bridge.
            arm64: Whether it is an emulated aarch64 device.
        """
        self.name = f"device-{index + 1:02d}"
        self.machine = f"{lab}-{index + 1}"
        self.folder, self.lower, self.bridge = folder, lower, bridge
        self.interface = bridge.device_address(index)
        self.address = str(self.interface.ip)
        self.link = f"vb-{self.machine}"
        self.group = f"edge-lab-{lab}/{self.machine}"
        self.architecture = "aarch64" if arm64 else platform.machine()
        self.handler = f"edge-lab-{self.machine}" if arm64 else ""
        self.files = folder / "upper"
        self.leader: int | None = None
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._notify: socket.socket | None = None

    @property
    def on(self) -> bool:
        return self._nspawn is not None

    @property
    def host_key(self) -> str:
        """The public host key in the format of a known_hosts file."""
        return " ".join((self.files / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])

    def seed(self, client_key: str) -> None:
        """Write the device's individual files: address, names, host key, and the public key for logins."""
        for name in ("upper", "work", "merged"):
            (self.folder / name).mkdir(parents=True)
        if self.handler:
            (self.folder / "handler").write_text(self.handler)  # read when the files of a killed lab are removed
        self.write("etc/hostname", f"{self.name}\n")
        self.write("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        self.write("etc/machine-id", f"{uuid.uuid4().hex}\n")
        self.write("etc/lab/network", f"ADDRESS={self.interface}\n")
        self.write(f"etc/ssh/authorized_keys/{USER}", f"{client_key}\n")
        self.write("etc/ssh/sshd_config.d/lab.conf", "AuthorizedKeysFile /etc/ssh/authorized_keys/%u\nUseDNS no\n")
        key = self.files / "etc/ssh/ssh_host_ed25519_key"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(key)],
            check=True,
            stdin=subprocess.DEVNULL,
        )

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on a device that is off.

        Args:
            path: Path on the device, without the leading slash.
            text: Content.
            mode: Permissions.
        """
        assert not self.on, "the upper folder of a mounted overlay must not be changed"
        file = self.files / path
        for parent in reversed(file.relative_to(self.files).parents):
            (self.files / parent).mkdir(exist_ok=True, mode=0o755)
        file.write_text(text)
        file.chmod(mode)

    def plug(self) -> None:
        """Boot the device and wait until its sshd listens. Raises LabError."""
        self.boot()
        self.wait()

    def boot(self) -> None:
        """Begin to boot, and return without waiting. Raises LabError."""
        if self.on:
            raise LabError(self.name, "the device is on", "a device that is off", "call unplug() first")
        path = self.folder / "notify"
        path.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._notify.bind(str(path))
        arguments = [
            "--quiet",
            f"--directory={self.folder / 'merged'}",
            "--boot",
            f"--machine={self.machine}",
            f"--hostname={self.name}",
            f"--network-bridge={self.bridge.name}",
            "--register=no",
            "--keep-unit",
            "--notify-ready=yes",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
        ]
        script = f"{emulation.register(self.handler)}{START}" if self.handler else START
        groups = [str(file) for file in cgroup.create(self.group)]
        with (self.folder / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                [*ALONE, script, "device", str(self.folder), ":".join(map(str, self.lower)), *groups, "--", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={"PATH": EXEC_PATH, "NOTIFY_SOCKET": str(path)},
                start_new_session=True,  # Ctrl-C must reach only the lab, which stops its devices in order
            )

    def wait(self, limit_s: float = BOOT_S) -> None:
        """Wait until systemd reports that the device has booted. On failure, unplug it and raise LabError."""
        assert self._nspawn and self._notify, "call boot() first"
        deadline = time.monotonic() + limit_s
        ended = os.pidfd_open(self._nspawn.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._notify, selectors.EVENT_READ)
                selector.register(ended, selectors.EVENT_READ)
                while True:
                    ready = [key.fileobj for key, _ in selector.select(deadline - time.monotonic())]
                    if self._notify in ready:
                        lines = self._notify.recv(4096).decode().splitlines()
                        for line in lines:
                            if line.startswith("X_NSPAWN_LEADER_PID="):
                                self.leader = int(line.partition("=")[2])
                        if "READY=1" in lines:
                            return
                    elif ended in ready or time.monotonic() >= deadline:
                        raise self._failed("ended" if ended in ready else f"not booted within {limit_s:.0f} s")
        except BaseException:
            self.unplug()
            raise
        finally:
            os.close(ended)

    def _failed(self, reason: str) -> LabError:
        log = self.folder / "console.log"
        lines = log.read_text(errors="replace").splitlines()[-6:]
        return LabError(self.name, "\n    ".join([reason, *lines]), "a device that has booted", f"see {log}")

    def unplug(self) -> None:
        """Cut the power: kill nspawn and all of the device's processes with SIGKILL. Files are kept.

        Writes that were not flushed are still in this machine's page cache, so this does not simulate lost writes.
        """
        if self._nspawn is None:
            return
        if not cgroup.kill(self.group):
            raise LabError(
                self.name,
                "some processes are still running after SIGKILL",
                "no running processes",
                f"see the cgroup {self.group}",
            )
        self._nspawn.kill()  # in case nspawn had not entered the cgroup yet
        self._nspawn.wait()
        if self._notify:
            self._notify.close()
        self._nspawn = self._notify = self.leader = None
        # The kernel would remove the link later, with the network namespace. But the next boot needs the link's name.
        network.remove_link(self.link)
        cgroup.remove(self.group)

    def disconnect(self) -> None:
        """Disconnect the network cable. The device keeps running."""
        network.ip("link", "set", self.link, "down")

    def connect(self) -> None:
        network.ip("link", "set", self.link, "up")

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
        process = subprocess.run(
            ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--", *command],
            capture_output=True,
            input=stdin,
            timeout=timeout_s,
            env={"PATH": EXEC_PATH, "HOME": "/root", "LANG": "C.UTF-8"},
            cwd="/",
            check=False,
        )
        result = subprocess.CompletedProcess(
            process.args, process.returncode, process.stdout.decode(), process.stderr.decode()
        )
        if check and result.returncode:
            raise LabError(
                f"{self.name}: {' '.join(command)}",
                f"exit code {result.returncode}: {(result.stderr or result.stdout).strip()}",
                "exit code 0",
                "read the output of the command",
            )
        return result

    def remove(self) -> None:
        """Delete all files of a device that is off."""
        shutil.rmtree(self.folder)


def addresses(devices: Iterable[Device]) -> str:
    """Return the content of a known_hosts file."""
    return "".join(f"{device.address} {device.host_key}\n" for device in devices)
