"""A cgroup per device, below one per lab: systemd-nspawn would otherwise boot all of them in the caller's.

Works on a unified hierarchy, on a hybrid one, and with or without systemd as this machine's init.
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
    """Those that a booting systemd takes for its own."""
    if (ROOT / "cgroup.procs").exists():
        return [ROOT]
    return [path for name in ("systemd", "unified") if (path := ROOT / name).is_dir()]


def create(name: str) -> list[Path]:
    """Makes `name` (may hold a slash) everywhere; answers with the files that a process id is written to."""
    files = []
    for hierarchy in hierarchies():
        (hierarchy / name).mkdir(parents=True, exist_ok=True)
        files.append(hierarchy / name / "cgroup.procs")
    return files


def kill(name: str) -> bool:
    """kill -9 of every process in it and below, until none is left; whether that went in time."""
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
    found: set[int] = set()
    for hierarchy in hierarchies():
        for file in (hierarchy / name).rglob("cgroup.procs"):
            with contextlib.suppress(OSError):  # gone since
                found.update(map(int, file.read_text().split()))
    return found - {0}


def remove(name: str) -> bool:
    """Removes it with all below, once the last process in it has been reaped. Returns whether it is gone."""
    deadline = time.monotonic() + LIMIT_S
    for hierarchy in hierarchies():
        while not _removed(hierarchy / name) and time.monotonic() < deadline:
            time.sleep(0.01)  # The kernel lets go of the dead a moment after they are gone; nothing announces it.
    return not any((hierarchy / name).exists() for hierarchy in hierarchies())


def _removed(folder: Path) -> bool:
    if not folder.exists():
        return True
    below = sorted((path for path in folder.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
    with contextlib.suppress(OSError):
        for path in [*below, folder]:
            path.rmdir()
    return not folder.exists()
