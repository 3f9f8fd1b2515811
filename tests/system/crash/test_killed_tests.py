"""A killed test that has mounted disks leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.paths import REPOSITORY
from tests.system.crash import disks

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(disks.missing()), reason=disks.missing())]

LIMIT_S = 30.0
PROGRAM = """\
import sys
from tests.system.crash import disks
from tests.system.crash.forks import folder, forks

with folder() as place, forks(place):
    disks.make(place / "disk.img")
    with disks.mounted(place / "disk.img", place / "disk", commit_s=300):
        print(place, flush=True)
        sys.stdin.read()
"""


def remains_in(place: Path) -> list[str]:
    """Return the mounts, loop devices, processes and files of a folder."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {place}/" in line]
    loops = subprocess.run(["losetup", "--list", "--noheadings", "--output=BACK-FILE"], capture_output=True, text=True)
    devices = [line for line in loops.stdout.splitlines() if line.startswith(f"{place}/")]
    commands = [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]
    processes = [line for line in commands if "tests.system.crash.forks" in line and str(place) in line]
    return [*mounts, *devices, *processes, *map(str, place.glob("*"))]


def test_a_killed_test_leaves_no_disk_mounted() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        place = Path(process.stdout.readline().strip())
        before = remains_in(place)
        process.kill()
    assert len(before) >= 4 and f"{place}/disk " in before[0], before

    deadline = time.monotonic() + LIMIT_S
    while remains_in(place):  # polled: no process announces the end
        assert time.monotonic() < deadline, remains_in(place)
        time.sleep(0.02)
