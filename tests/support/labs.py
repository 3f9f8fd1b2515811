"""Labs in tests: whether this machine can have one, one in a process of its own, and what is left of one."""

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
    """Skips the test where this machine lacks something."""
    if lacking := lab.missing(arm64):
        pytest.skip(lacking)


def left(identity: str) -> list[str]:
    """What there still is of a lab: links, mounts, processes, folders, handlers of aarch64's programs."""
    links = [line for line in network.ip("-brief", "link").splitlines() if identity in line]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if identity in line]
    # os.walk, unlike rglob, passes over what is removed meanwhile.
    groups = [path for path, _, _ in os.walk("/sys/fs/cgroup") if f"{PREFIX}{identity}" in Path(path).name]
    known = subprocess.run([*ALONE, f"{MOUNT}; ls {HANDLERS}"], capture_output=True, text=True, check=False).stdout
    handlers = [line for line in known.splitlines() if identity in line]
    return [*links, *mounts, *groups, *map(str, FOLDER.glob(f"{PREFIX}{identity}*")), *handlers]


def gone(identity: str, limit_s: float = 30.0) -> bool:
    """Whether nothing is left of a lab within this time. No process tells when."""
    deadline = time.monotonic() + limit_s
    while left(identity):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def keep_up(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A lab of one device in a process of its own, standing."""
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
    raise AssertionError("no lab stands")
