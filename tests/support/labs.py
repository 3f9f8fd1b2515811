"""Labs in tests: skip where none can run, start one in a separate process, and find what remains of one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import lab, network
from lab.emulation import ALONE, HANDLERS, MOUNT
from lab.lab import FOLDER, PREFIX
from tests.support.paths import REPOSITORY


def need_lab(arm64: bool = False) -> None:
    """Skip the test if this machine lacks something that a lab needs."""
    if lacking := lab.missing(arm64):
        pytest.skip(lacking)


def remains_of(identity: str) -> list[str]:
    """Return what remains of a lab: links, mounts, cgroups, folders and handlers of aarch64 programs."""
    links = [line for line in network.ip("-brief", "link").splitlines() if identity in line]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if identity in line]
    # os.walk, unlike rglob, skips folders that are removed during the walk.
    groups = [path for path, _, _ in os.walk("/sys/fs/cgroup") if f"{PREFIX}{identity}" in Path(path).name]
    listing = subprocess.run([*ALONE, f"{MOUNT}; ls {HANDLERS}"], capture_output=True, text=True, check=False).stdout
    handlers = [line for line in listing.splitlines() if identity in line]
    return [*links, *mounts, *groups, *map(str, FOLDER.glob(f"{PREFIX}{identity}*")), *handlers]


def is_removed(identity: str, limit_s: float = 30.0) -> bool:
    """Return whether a lab is completely removed within this time. It is polled, because no process announces it."""
    deadline = time.monotonic() + limit_s
    while remains_of(identity):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def start_lab(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start a lab of one device in a separate process and return it with the lab's identity when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "--devices", "1", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout
    for line in process.stdout:
        if PREFIX in line:
            return process, line.partition(PREFIX)[2][:4]
    raise AssertionError("the lab did not start")
