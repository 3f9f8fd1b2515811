"""The agent on a lab's devices: its wheelhouse, made once per state of its sources, and devices that have it already.

Sources are read once in a process, so that one fleet has one agent. A test of bootstrapping starts with bare devices;
one of anything later starts with `Lab(n, layer=agents.layer())`: the environment that playbooks/bootstrap.yml would
install is there, and bootstrapping takes seconds.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet import wheelhouse as building
from tests.lab import root
from tests.lab.errors import LabError

REPOSITORY = Path(__file__).parents[2]
NAME = f"cp311-{platform.machine()}"
KEEP_S = 7200.0
INSTALL = """\
set -eu
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
ENTER = ("unshare", "--mount", "--propagation", "private", "sh", "-c", INSTALL, "install")


@functools.cache
def wheelhouses() -> Path:
    """For `edge_agent_wheelhouses`: what `make wheelhouse` makes of the sources as they are now."""
    sources = hashlib.sha256((REPOSITORY / "constraints.txt").read_bytes())
    for file in sorted((REPOSITORY / "device").rglob("*")):
        if file.is_file() and not {"__pycache__", "build"} & set(file.parts) and ".egg-info" not in str(file):
            sources.update(f"{file.relative_to(REPOSITORY)}\0".encode() + file.read_bytes())
    folder = root.cache() / f"wheelhouse-{sources.hexdigest()[:12]}"
    with _alone("wheelhouse"):
        if not (folder / NAME).is_dir():
            others = sorted(root.cache().glob("wheelhouse-*/"), key=lambda path: path.stat().st_mtime)
            previous = others[-1] / NAME if others else None
            building.build(folder, "3.11", platform.machine(), "2.36", "onnx,litert", previous)
            _forget(others)
    return folder


@functools.cache
def layer() -> Path:
    """A folder that lies over the root: what bootstrapping installs of that wheelhouse, byte for byte."""
    house = wheelhouses() / NAME
    facts = json.loads((house / "wheelhouse.json").read_text())
    base = root.ensure()
    folder = root.cache() / f"agent-{facts['digest']}-{base.name.rpartition('-')[2]}"
    with _alone("agent"):
        if not folder.is_dir():
            _forget(root.cache().glob("agent-*/"))
            parts = [folder.with_suffix(suffix) for suffix in (".partial", ".work", ".merged")]
            for part in parts:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
            done = subprocess.run(
                [*ENTER, str(base), *map(str, parts), str(house), facts["digest"], facts["dependencies"]],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            if done.returncode:
                raise LabError("the agent's layer", done.stderr.strip()[-2000:], "an environment", "see the message")
            parts[0].rename(folder)
            for part in parts[1:]:
                shutil.rmtree(part)
    return folder


def _forget(folders: Iterable[Path]) -> None:
    """Those of earlier sources that no test can be using any more."""
    for folder in folders:
        if time.time() - folder.stat().st_mtime > KEEP_S:
            shutil.rmtree(folder)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    root.cache().mkdir(parents=True, exist_ok=True)
    with (root.cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
