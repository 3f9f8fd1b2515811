"""Single programs of aarch64 on this machine, without a boot.

Their root is mounted read-only in a mount namespace of its own, which takes every mount with it when its last process
ends.
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
from lab.errors import lacking

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
    """What this machine lacks to run aarch64's programs, and how to get it; empty where nothing."""
    if os.geteuid() != 0:
        return "an aarch64 root is built and entered by root: sudo --preserve-env=PATH make ..."
    return emulation.unfit() or lacking(PROGRAMS)


class Arm64:
    """Programs of the root, which see `folder` as /mnt and may write only there and below /tmp."""

    def __init__(self, folder: Path) -> None:
        self.root, self.folder = root.ensure(arm64=True, boots=False), folder

    @contextmanager
    def running(self, *command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """`command`: a SIGTERM reaches it, and its exit code comes back. Nothing of it is left afterwards."""
        with (
            emulated(f"edge-ai-arm64-{uuid.uuid4().hex[:12]}") as first,
            log.open("wb") as stream,
            session(
                [*ALONE, f"{first}{ENTER}", "enter", str(self.root), str(self.folder), *command],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={"PATH": "/mnt/agent/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"},
            ) as process,
        ):
            yield process

    def run(self, *command: str, timeout_s: float = 300.0) -> tuple[int, str]:
        """Its exit code, and what it said."""
        log = self.folder / f"{uuid.uuid4().hex[:12]}.log"
        with self.running(*command, log=log) as process:
            code = process.wait(timeout_s)
        return code, log.read_text(errors="replace")
