"""Run single aarch64 programs on this machine without booting a device.

The programs run in a separate mount namespace, in which a Debian root for aarch64 is mounted read-only. The kernel
removes the mounts when the last process in the namespace ends.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import emulation, root
from lab.cleanup import session
from lab.emulation import ALONE, emulated
from lab.errors import missing_packages

PROGRAMS = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", **emulation.PROGRAMS}
ENTER = """\
root=$1 folder=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$folder" "$root/mnt"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
trap 'kill -TERM $child' TERM
chroot "$root" "$@" &
child=$!
code=0
wait $child || code=$?
if kill -0 $child 2>/dev/null; then
    code=0
    wait $child || code=$?
fi
exit $code
"""


def missing() -> str:
    """Return what this machine needs to run aarch64 programs and how to install it; empty if it has everything."""
    if os.geteuid() != 0:
        return "building and entering an aarch64 root needs root privileges: sudo --preserve-env=PATH make ..."
    return emulation.unsupported() or missing_packages(PROGRAMS)


class Arm64:
    """Run programs of the aarch64 root. They see `folder` as /mnt, and can write only to /mnt and /tmp."""

    def __init__(self, folder: Path) -> None:
        self.root, self.folder = root.ensure(arm64=True, boots=False), folder

    @contextmanager
    def running(self, *command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command during a `with` block. At the end of the block, all its processes are killed.

        The yielded process forwards SIGTERM to the command, and has the command's exit code.

        Args:
            command: Program and arguments.
            log: File that receives stdout and stderr.
        """
        with (
            emulated(f"edge-ai-arm64-{uuid.uuid4().hex[:12]}") as prologue,
            log.open("wb") as stream,
            session(
                [*ALONE, f"{prologue}{ENTER}", "enter", str(self.root), str(self.folder), *command],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={"PATH": "/mnt/agent/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"},
            ) as process,
        ):
            yield process

    def run(self, *command: str, timeout_s: float = 300.0) -> tuple[int, str]:
        """Run a command to its end. Return its exit code and its output."""
        log = self.folder / f"{uuid.uuid4().hex[:12]}.log"
        with self.running(*command, log=log) as process:
            code = process.wait(timeout_s)
        return code, log.read_text(errors="replace")
