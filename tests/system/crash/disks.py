"""Simulate power cuts of disks: ext4 in a file, mounted through a loop device, and snapshots of that file.

A snapshot is the content of the disk at one moment: everything that the file system has written to the device until
then, in that order, and nothing that is still in memory. Mounting it replays the journal, as a boot does.

Simulated is a power cut that loses the kernel's page cache, with a disk that keeps all writes it has received.
Not simulated are a disk with a volatile cache that reorders writes between flushes or reports flushes that it did not
make, a half-written sector, and a card that loses blocks written long ago. Digests detect the last when a slot is read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SIZE = 32 << 20
TRIES = 200


def missing() -> str:
    """Return why such a disk is not possible here, with the fix; empty if it is possible."""
    if os.geteuid() != 0:
        return "loop devices need root; remedy: sudo --preserve-env=PATH make test-crash"
    absent = [tool for tool in ("losetup", "mkfs.ext4", "mount", "umount") if shutil.which(tool) is None]
    if absent:
        return f"{', '.join(absent)} not found; remedy: apt-get install e2fsprogs mount"
    if not Path("/dev/loop-control").exists():
        return "this kernel, or this container, has no loop devices; remedy: modprobe loop, or run it on the host"
    return ""


@dataclass(frozen=True)
class Disk:
    """A mounted image."""

    image: Path
    device: str
    mount: Path

    def snapshot(self, copy: Path) -> None:
        """Copy the image as it is at one moment. The caller has stopped the processes that write to it.

        The kernel may still write: if a write ends or is in progress during the copy, the image is copied again.
        """
        for _ in range(TRIES):
            before = self._writes()
            subprocess.run(["cp", "--sparse=always", str(self.image), str(copy)], check=True)
            after = self._writes()
            if before == after and before[1] == 0:
                return
        raise AssertionError(f"{self.image}: not without writes during a copy, {TRIES} times")

    def _writes(self) -> tuple[int, int]:
        """Return the number of completed writes and of requests in progress (kernel: Documentation/block/stat)."""
        fields = Path("/sys/block", Path(self.device).name, "stat").read_text().split()
        return int(fields[4]), int(fields[8])


def make(image: Path, size: int = SIZE) -> None:
    """Create an image of `size` bytes with an empty ext4 file system with a journal."""
    with image.open("wb") as stream:
        stream.truncate(size)
    options = ["-q", "-b", "4096", "-O", "has_journal", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
    subprocess.run(["mkfs.ext4", *options, str(image)], check=True)


@contextlib.contextmanager
def mounted(image: Path, mount: Path, commit_s: int) -> Iterator[Disk]:
    """Mount an image, which replays its journal, and unmount it at the end."""
    mount.mkdir(parents=True, exist_ok=True)
    attach = ["losetup", "--find", "--show", "--direct-io=off", str(image)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    try:
        options = f"data=ordered,commit={commit_s}"
        subprocess.run(["mount", "-t", "ext4", "-o", options, device, str(mount)], check=True)
    finally:
        # While it is mounted, the kernel delays this until the unmount, whichever process makes it.
        subprocess.run(["losetup", "--detach", device], check=True)
    try:
        yield Disk(image, device, mount)
    finally:
        subprocess.run(["umount", str(mount)], check=True)
