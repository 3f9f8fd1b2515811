"""Create and remove the cgroups of a lab: one for the lab, and below it one for each device.

Without them, all devices would boot in the caller's cgroup. This works with a unified and with a hybrid hierarchy, and
with or without systemd as this machine's init.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
LIMIT_S = 10.0


def hierarchies() -> list[Path]:
    """Return the cgroup hierarchies that systemd uses when it boots."""
    if (ROOT / "cgroup.procs").exists():
        return [ROOT]
    return [path for name in ("systemd", "unified") if (path := ROOT / name).is_dir()]


def create(name: str) -> list[Path]:
    """Create the cgroup `name` (which may contain a slash). Return the files to write a process's id to."""
    files = []
    for hierarchy in hierarchies():
        (hierarchy / name).mkdir(parents=True, exist_ok=True)
        files.append(hierarchy / name / "cgroup.procs")
    return files


def kill(name: str) -> bool:
    """Kill all processes in the cgroup and below it with SIGKILL. Return whether all ended within LIMIT_S."""
    deadline = time.monotonic() + LIMIT_S
    while processes := _processes(name):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _processes(name: str) -> set[int]:
    processes: set[int] = set()
    for hierarchy in hierarchies():
        for file in (hierarchy / name).rglob("cgroup.procs"):
            with contextlib.suppress(OSError):  # the cgroup was removed in the meantime
                processes.update(map(int, file.read_text().split()))
    return processes - {0}


def remove(name: str) -> bool:
    """Remove the cgroup and all below it after their last process was reaped. Return whether they were removed."""
    deadline = time.monotonic() + LIMIT_S
    for hierarchy in hierarchies():
        while not _removed(hierarchy / name) and time.monotonic() < deadline:
            time.sleep(0.01)  # The kernel releases ended processes a moment later, without a notification.
    return not any((hierarchy / name).exists() for hierarchy in hierarchies())


def _removed(folder: Path) -> bool:
    if not folder.exists():
        return True
    below = sorted((path for path in folder.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
    with contextlib.suppress(OSError):
        for path in [*below, folder]:
            path.rmdir()
    return not folder.exists()
