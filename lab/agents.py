"""Provide the agent for a lab's devices: its wheelhouse, and an overlay folder in which it is installed.

The wheelhouse is built once for each version of the sources. A process reads the sources only once, so that all devices
of a fleet have the same agent. Tests of bootstrapping start with devices without an agent. Other tests start with
`Lab(n, layer=agents.layer())`. These devices already have the environment that playbooks/bootstrap.yml would install,
so that bootstrapping takes only seconds. Pass `arm64=True` for a lab with aarch64 devices.
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
    """Return the folder for `edge_agent_wheelhouses`, as `make wheelhouse` builds it. `arm64` adds aarch64."""
    folder = _folder()
    with _locked("wheelhouse"):
        for name in {NAMES[False], NAMES[arm64]}:
            if not (folder / name).is_dir():
                other_versions = [path.parent for path in root.cache().glob(f"wheelhouse-*/{name}/")]
                latest = max(other_versions, key=lambda path: path.stat().st_mtime, default=None)
                architecture = name.partition("-")[2]
                building.build(folder, "3.11", architecture, "2.36", "onnx,litert", latest and latest / name)
                _remove_old(other_versions)
        os.utime(folder)  # marks it as used
    return folder


@functools.cache
def layer(arm64: bool = False) -> Path:
    """Return an overlay folder for the root, with exactly the files that bootstrapping installs."""
    wheelhouse = wheelhouses(arm64) / NAMES[arm64]
    facts = json.loads((wheelhouse / "wheelhouse.json").read_text())
    base = root.ensure(arm64)
    folder = root.cache() / f"agent-{facts['digest']}-{base.name.rpartition('-')[2]}"
    with _locked("agent"):
        if not folder.is_dir():
            _remove_old(root.cache().glob("agent-*/"))
            parts = [folder.with_suffix(suffix) for suffix in (".partial", ".work", ".merged")]
            for part in parts:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
            names = (facts["digest"], facts["dependencies"])
            with emulated(f"edge-lab-agent-{os.getpid()}", arm64) as prologue:
                install = session(
                    [*ALONE, f"{prologue}{INSTALL}", "install", str(base), *map(str, parts), str(wheelhouse), *names],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    stdin=subprocess.DEVNULL,
                )
                with install as process:
                    _, errors = process.communicate()
            if process.returncode:
                raise LabError(
                    "the agent's layer",
                    errors.strip()[-2000:],
                    "an environment with the agent installed",
                    "read the messages of the installation",
                )
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


def _remove_old(folders: Iterable[Path]) -> None:
    """Remove folders of other versions that were not used for KEEP_S seconds, so no running test uses them."""
    for folder in folders:
        if time.time() - folder.stat().st_mtime > KEEP_S:
            shutil.rmtree(folder)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    root.cache().mkdir(parents=True, exist_ok=True)
    with (root.cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
