"""An aarch64 Debian on this machine: its root built once by mmdebstrap and kept, its programs run by qemu-user.

The root is unpacked, not configured: nothing of it has to run for that, and what a test needs of it is Python. It is
mounted read-only in a mount namespace of its own, which takes every mount with it when the last process in it ends,
and with the mount of binfmt_misc what the kernel was told there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.root import APT, DPKG, SUITE, cache, debian_sources

PACKAGES = ("base-files", "coreutils", "dash", "libgomp1", "libstdc++6", "python3", "python3-venv")
MOUNTED = ("dev", "mnt", "proc", "tmp")
PROGRAMS = {"mmdebstrap": "mmdebstrap", "qemu-aarch64-static": "qemu-user-static", "unshare": "util-linux"}
# What an ELF file for aarch64 begins with (qemu's scripts/qemu-binfmt-conf.sh); F: found now, also inside a chroot.
MAGIC = (
    r"M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
)
ENTER = """\
set -eu
root=$1 folder=$2 handler=$3 rule=$4
shift 4
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$folder" "$root/mnt"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
known=/proc/sys/fs/binfmt_misc
test -e $known/register || mount -t binfmt_misc binfmt_misc $known
trap 'if test -e $known/$handler; then echo -1 >$known/$handler; fi' EXIT
printf '%s' "$rule" >$known/register
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
    packages = sorted({package for name, package in PROGRAMS.items() if not shutil.which(name)})
    return f"not installed; get it with: apt-get install {' '.join(packages)}" if packages else ""


def ensure() -> Path:
    """The root's folder, built when it is not there. Raises LabError."""
    recipe = hashlib.sha256(repr((SUITE, PACKAGES, MOUNTED, APT, DPKG)).encode()).hexdigest()[:12]
    folder = cache() / f"arm64-{recipe}"
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "arm64.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                _build(partial)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _build(folder: Path) -> None:
    sources = folder.with_suffix(".sources")
    sources.write_text("".join(f"{stanza}\n\n" for stanza in debian_sources()))
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=extract",
        "--architectures=arm64",
        f"--include={','.join(PACKAGES)}",
        *(f"--aptopt={option}" for option in APT),
        *(f"--dpkgopt={option}" for option in DPKG),
        SUITE,
        str(folder),
        # Without sources of this machine mmdebstrap takes its own default for the suite.
        *([str(sources)] if sources.stat().st_size else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    sources.unlink()
    if done.returncode:
        raise LabError(
            "mmdebstrap",
            "\n    ".join([f"exit code {done.returncode}; its last lines:", *done.stderr.splitlines()[-8:]]),
            f"a Debian {SUITE} root for arm64 in {folder}",
            "is a Debian archive reachable, and is debian-archive-keyring installed?",
        )
    for name in MOUNTED:
        (folder / name).mkdir(exist_ok=True)


class Arm64:
    """Programs of the root, which see `folder` as /mnt and may write only there and below /tmp."""

    def __init__(self, folder: Path) -> None:
        self.root, self.folder = ensure(), folder

    def start(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """`command` in a process group of its own; a SIGTERM reaches it, and its exit code comes back."""
        handler = f"edge-ai-arm64-{uuid.uuid4().hex[:12]}"
        rule = f":{handler}:{MAGIC}:{shutil.which('qemu-aarch64-static')}:F"
        entered = ["unshare", "--mount", "sh", "-c", ENTER, "sh", str(self.root), str(self.folder), handler, rule]
        environment = {"PATH": "/mnt/agent/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
        with log.open("wb") as stream:
            return subprocess.Popen(
                [*entered, *command], stdout=stream, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def run(self, *command: str, timeout_s: float = 300.0) -> tuple[int, str]:
        """Its exit code, and what it said."""
        log = self.folder / f"{uuid.uuid4().hex[:12]}.log"
        process = self.start(*command, log=log)
        with ending(process):
            code = process.wait(timeout_s)
        return code, log.read_text(errors="replace")


@contextlib.contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Nothing of the process' group is left afterwards."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
