"""Measure the processor time and memory of a group of processes with the kernel's cgroup accounting.

Background ssh processes and killed processes are included; rusage would miss both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PREFIX = "edge-bench-"
LIMIT_S = 10.0
# Enters the given cgroups, then executes the command.
JOIN = ("sh", "-c", 'while [ "$1" != -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@"', "join")


class Account:
    """A cgroup for a group of processes: `with Account("controller") as account: Popen(account.joined(command))`."""

    def __init__(self, name: str) -> None:
        self.unified = (ROOT / "cgroup.controllers").exists()
        name = f"{PREFIX}{os.getpid()}-{name}"
        if self.unified:
            self.processor = self.memory = ROOT / name
        else:
            self.processor, self.memory = ROOT / "cpuacct" / name, ROOT / "memory" / name

    def __enter__(self) -> Account:
        if self.unified:
            (ROOT / "cgroup.subtree_control").write_text("+memory")
        for folder in {self.processor, self.memory}:
            folder.mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        """Kill the remaining processes, such as workers of an interrupted playbook, and remove the cgroup."""
        deadline = time.monotonic() + LIMIT_S
        while not self._removed() and time.monotonic() < deadline:
            for process in (self.processor / "cgroup.procs").read_text().split() if self.processor.exists() else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            time.sleep(0.01)  # the kernel releases ended processes a moment later, without a notification

    def _removed(self) -> bool:
        for folder in {self.processor, self.memory}:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return not self.processor.exists() and not self.memory.exists()

    @property
    def files(self) -> list[str]:
        """A process that writes 0 to each of these files joins the account, with all its later children."""
        return sorted({str(folder / "cgroup.procs") for folder in (self.processor, self.memory)})

    def joined(self, command: list[str]) -> list[str]:
        """Return the command that joins the account and then runs `command`."""
        return [*JOIN, *self.files, "--", *command]

    def processor_s(self) -> float:
        """Return the processor time that the account has used so far, in seconds."""
        if self.unified:
            return self._stat(self.processor / "cpu.stat", "usage_usec") / 1e6
        return int((self.processor / "cpuacct.usage").read_text()) / 1e9

    def memory_mb(self) -> float:
        """Return the current anonymous memory in MB (1e6 bytes). Shared pages are counted once."""
        return self._stat(self.memory / "memory.stat", "anon" if self.unified else "total_rss") / 1e6

    @staticmethod
    def _stat(file: Path, name: str) -> int:
        return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.split()[0] == name)


class Peak:
    """The peak memory in MB that an account used during a `with` block, sampled every `every_s` seconds."""

    def __init__(self, account: Account, every_s: float = 0.2) -> None:
        self.account, self.every_s, self.mb = account, every_s, 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(self.every_s):
            self.mb = max(self.mb, self.account.memory_mb())


def sweep() -> None:
    """Remove accounts of killed runs. The kernel does not remove an account that contains processes."""
    for hierarchy in (ROOT, ROOT / "cpuacct", ROOT / "memory"):
        for folder in hierarchy.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                folder.rmdir()
