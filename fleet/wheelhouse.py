"""`make wheelhouse`: all that a device installs its agent from, without a network.

    <output>/cp311-x86_64/
        wheelhouse.json     the names below, and the digest that names the environment on a device
        requirements.txt    every distribution with its version and SHA-256, for pip's --require-hashes
        dependencies-<digest>.tar    third parties' wheels; changes seldom
        edge_agent-<version>-py3-none-any.whl
        edge-agent.service  the unit, out of that very wheel

The same sources and pins give the same names and digests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from packaging.utils import parse_wheel_filename

from fleet.errors import FleetError, WheelhouseError

REPOSITORY = Path(__file__).parents[1]
OUTPUT = REPOSITORY / "dist" / "wheelhouse"
UNIT = "edge_agent/systemd/edge-agent.service"
# 1980 is the first year that a zip archive can say.
SOURCE_DATE_EPOCH = "315532800"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fleet.wheelhouse", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="3.11", metavar="X.Y", help="of the devices (3.11: Debian 12)")
    parser.add_argument("--architecture", choices=("x86_64", "aarch64"), default="x86_64", help="of the devices")
    parser.add_argument("--glibc", default="2.36", metavar="X.Y", help="of the devices (2.36: Debian 12)")
    parser.add_argument("--extras", default="onnx,litert", help="runtimes to bring (onnx,litert)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder (dist/wheelhouse)")
    options = parser.parse_args()
    try:
        folder = build(options.output, options.python, options.architecture, options.glibc, options.extras)
    except FleetError as error:
        print(f"wheelhouse: {error}", file=sys.stderr)
        return error.exit_code
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{folder} ({size:.1f} MB)")
    return 0


def build(output: Path, python: str, architecture: str, glibc: str, extras: str, previous: Path | None = None) -> Path:
    """The wheelhouse's folder, whole or not there. Third parties' wheels are taken over from `previous`, by default the
    one that is replaced, when nothing that decides them has changed. Raises WheelhouseError.
    """
    folder = output / f"cp{python.replace('.', '')}-{architecture}"
    output.mkdir(parents=True, exist_ok=True)
    inputs = _inputs(python, architecture, glibc, extras)
    with tempfile.TemporaryDirectory(dir=output, prefix=".building-") as name:
        work = Path(name)
        made = work / "made"
        made.mkdir()
        agent = _agent(work / "agent")
        shutil.copy(agent, made / agent.name)
        taken = _taken_over(previous or folder, inputs, made)
        if taken is None:
            wheels = work / "wheels"
            _download(agent, extras, wheels, python, architecture, glibc)
            (wheels / agent.name).unlink(missing_ok=True)
            taken = _tar(wheels, made), [_line(file) for file in wheels.iterdir()]
        dependencies, lines = taken
        requirements = "\n".join(sorted([*lines, _line(agent)])) + "\n"
        (made / "requirements.txt").write_text(requirements, encoding="utf-8")
        with zipfile.ZipFile(agent) as archive:
            (made / "edge-agent.service").write_bytes(archive.read(UNIT))
        facts = {
            "digest": hashlib.sha256(requirements.encode()).hexdigest()[:12],
            "python": python,
            "architecture": architecture,
            "agent": agent.name,
            "dependencies": dependencies.name,
            "dependencies_digest": dependencies.stem.rpartition("-")[2],
            "inputs": inputs,
        }
        (made / "wheelhouse.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(work / "old")
        made.rename(folder)
    return folder


def _inputs(*options: str) -> str:
    """Digest of all that decides which wheels of third parties there are."""
    files = [REPOSITORY / "constraints.txt", REPOSITORY / "device" / "pyproject.toml"]
    return hashlib.sha256(repr((options, [file.read_bytes() for file in files])).encode()).hexdigest()[:12]


def _taken_over(previous: Path, inputs: str, made: Path) -> tuple[Path, list[str]] | None:
    """The archive, linked into `made`, and the lines of its wheels; None where it must be made."""
    try:
        facts = json.loads((previous / "wheelhouse.json").read_text(encoding="utf-8"))
        lines = (previous / "requirements.txt").read_text(encoding="utf-8").splitlines()
        if facts.get("inputs") != inputs:
            return None
        path = made / facts["dependencies"]
        path.hardlink_to(previous / path.name)
    except (FileNotFoundError, ValueError):
        return None
    return path, [line for line in lines if not line.startswith("edge-agent==")]


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH},
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise WheelhouseError(
            f"pip {arguments[0]}",
            "\n    ".join(errors or done.stderr.splitlines()[-5:]),
            "wheels for the device's Python, architecture and C library",
            "is there such a wheel for the pinned version? Can an index of packages be reached?",
        )


def _agent(folder: Path) -> Path:
    """Built from a copy: setuptools writes beside the sources, and what it finds there of old it packs again."""
    source = folder / "source"
    shutil.copytree(
        REPOSITORY / "device", source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*")
    )
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    return next(folder.glob("edge_agent-*.whl"))


def _download(agent: Path, extras: str, wheels: Path, python: str, architecture: str, glibc: str) -> None:
    newest = int(glibc.partition(".")[2])
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in range(newest, 4, -1)]
    platforms += [f"manylinux2014_{architecture}", f"linux_{architecture}"]
    _pip(
        "download",
        "--only-binary=:all:",
        f"--python-version={python}",
        "--implementation=cp",
        *(f"--platform={platform}" for platform in platforms),
        f"--constraint={REPOSITORY / 'constraints.txt'}",
        f"--dest={wheels}",
        f"edge-agent[{extras}] @ {agent.as_uri()}",
    )


def _line(wheel: Path) -> str:
    name, version, _, _ = parse_wheel_filename(wheel.name)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def _tar(wheels: Path, folder: Path) -> Path:
    """One file: copying forty to each device takes Ansible a minute. Named after what is in it."""
    files = sorted(wheels.iterdir())
    digest = hashlib.sha256("\n".join(map(_line, files)).encode()).hexdigest()[:12]
    path = folder / f"dependencies-{digest}.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for file in files:
            entry = tarfile.TarInfo(file.name)
            entry.size, entry.mode = file.stat().st_size, 0o644
            with file.open("rb") as stream:
                archive.addfile(entry, stream)
    return path


if __name__ == "__main__":
    sys.exit(main())
