"""The agent on a lab's devices: its wheelhouse, made once per state of its sources, and devices that have it already.

Sources are read once in a process, so that one fleet has one agent. A test of bootstrapping starts with bare devices;
one of anything later starts with `Lab(n, layer=agents.layer())`: the environment that playbooks/bootstrap.yml would
install is there, and bootstrapping takes seconds. `arm64` is for a lab that has such devices.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet import wheelhouse as building
from lab import root
from lab.cleanup import session
from lab.emulation import ALONE, emulated
from lab.errors import LabError

REPOSITORY = Path(__file__).parents[1]
NAMES = {False: f"cp311-{platform.machine()}", True: "cp311-aarch64"}
KEEP_S = 7200.0
INSTALL = """\
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
mount --bind "$5" "$4/mnt"
mount -t proc proc "$4/proc"
chroot "$4" /bin/sh -euc '
    environment=/opt/edge-agent/environments/$1
    mkdir -p /tmp/wheels && tar -xf /mnt/$2 -C /tmp/wheels
    python3 -m venv "$environment"
    PIP_CONFIG_FILE=/dev/null "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-index \
        --find-links=/tmp/wheels --find-links=/mnt --require-hashes --requirement=/mnt/requirements.txt
    rm -r /tmp/wheels
    touch "$environment/.complete"
' sh "$6" "$7"
"""


@functools.cache
def wheelhouses(arm64: bool = False) -> Path:
    """For `edge_agent_wheelhouses`: what `make wheelhouse` makes of the sources; `arm64`: for aarch64 as well."""
    folder = _folder()
    with _alone("wheelhouse"):
        for name in {NAMES[False], NAMES[arm64]}:
            if not (folder / name).is_dir():
                others = [path.parent for path in root.cache().glob(f"wheelhouse-*/{name}/")]
                latest = max(others, key=lambda path: path.stat().st_mtime, default=None)
                architecture = name.partition("-")[2]
                building.build(folder, "3.11", architecture, "2.36", "onnx,litert", latest and latest / name)
                _forget(others)
        os.utime(folder)  # in use
    return folder


@functools.cache
def layer(arm64: bool = False) -> Path:
    """A folder that lies over the root: what bootstrapping installs of that wheelhouse, byte for byte."""
    house = wheelhouses(arm64) / NAMES[arm64]
    facts = json.loads((house / "wheelhouse.json").read_text())
    base = root.ensure(arm64)
    folder = root.cache() / f"agent-{facts['digest']}-{base.name.rpartition('-')[2]}"
    with _alone("agent"):
        if not folder.is_dir():
            _forget(root.cache().glob("agent-*/"))
            parts = [folder.with_suffix(suffix) for suffix in (".partial", ".work", ".merged")]
            for part in parts:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
            names = (facts["digest"], facts["dependencies"])
            with emulated(f"edge-lab-agent-{os.getpid()}", arm64) as first:
                install = session(
                    [*ALONE, f"{first}{INSTALL}", "install", str(base), *map(str, parts), str(house), *names],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    stdin=subprocess.DEVNULL,
                )
                with install as process:
                    _, errors = process.communicate()
            if process.returncode:
                raise LabError("the agent's layer", errors.strip()[-2000:], "an environment", "see the message")
            parts[0].rename(folder)
            for part in parts[1:]:
                shutil.rmtree(part)
        os.utime(folder)
    return folder


@functools.cache
def _folder() -> Path:
    sources = hashlib.sha256((REPOSITORY / "constraints.txt").read_bytes())
    for file in sorted((REPOSITORY / "device").rglob("*")):
        if file.is_file() and not {"__pycache__", "build"} & set(file.parts) and ".egg-info" not in str(file):
            sources.update(f"{file.relative_to(REPOSITORY)}\0".encode() + file.read_bytes())
    return root.cache() / f"wheelhouse-{sources.hexdigest()[:12]}"


def _forget(folders: Iterable[Path]) -> None:
    """Those of other sources that nobody has asked for since: no test can be using them any more."""
    for folder in folders:
        if time.time() - folder.stat().st_mtime > KEEP_S:
            shutil.rmtree(folder)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    root.cache().mkdir(parents=True, exist_ok=True)
    with (root.cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
