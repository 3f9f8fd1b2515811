"""Disks whose power can be cut: ext4 in a file, mounted through a loop device, and pictures of that file.

A picture is what a disk holds at one moment: everything that the file system has handed to the device until then, in
the order in which it did, and nothing of what it still has in memory. To mount it replays the journal, as a boot does.

What this simulates: a power cut under a kernel that loses its page cache, with a disk that keeps what it was given.
What it does not: a disk with a volatile cache that reorders writes between two flushes or lies about them, a sector
that is torn in the middle, a card that loses blocks written long ago. Digests find the last one when the slot is read.
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
    """Why there can be no such disk here, and what to do; empty: there can."""
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

    def picture(self, copy: Path) -> None:
        """Copy the image as it is at one moment. The caller has stopped who writes; what the kernel does by itself is
        seen: no write may have ended, or be on its way, while the image is copied, or it is copied again.
        """
        for _ in range(TRIES):
            before = self._writes()
            subprocess.run(["cp", "--sparse=always", str(self.image), str(copy)], check=True)
            after = self._writes()
            if before == after and before[1] == 0:
                return
        raise AssertionError(f"{self.image}: never quiet for as long as a copy takes, {TRIES} times")

    def _writes(self) -> tuple[int, int]:
        """Writes that ended since the device exists, and requests on their way (kernel: Documentation/block/stat)."""
        fields = Path("/sys/block", Path(self.device).name, "stat").read_text().split()
        return int(fields[4]), int(fields[8])


def make(image: Path) -> None:
    """An empty ext4 with a journal."""
    with image.open("wb") as stream:
        stream.truncate(SIZE)
    options = ["-q", "-b", "4096", "-O", "has_journal", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
    subprocess.run(["mkfs.ext4", *options, str(image)], check=True)


@contextlib.contextmanager
def mounted(image: Path, mount: Path, commit_s: int) -> Iterator[Disk]:
    """Mount an image; the journal is replayed first where there is something in it. Unmounts and detaches its own."""
    mount.mkdir(parents=True, exist_ok=True)
    attach = ["losetup", "--find", "--show", "--direct-io=off", str(image)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    try:
        options = f"data=ordered,commit={commit_s}"
        subprocess.run(["mount", "-t", "ext4", "-o", options, device, str(mount)], check=True)
    finally:
        # Of one that is mounted the kernel makes it come true with the unmounting, whoever does that.
        subprocess.run(["losetup", "--detach", device], check=True)
    try:
        yield Disk(image, device, mount)
    finally:
        subprocess.run(["umount", str(mount)], check=True)
