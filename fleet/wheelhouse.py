"""Build the wheelhouse (`make wheelhouse`): all files that a device needs to install the agent without a network.

    <output>/cp311-x86_64/
        wheelhouse.json     the names of these files, and the digest for the name of the device's virtual environment
        requirements.txt    every Python package with its version and SHA-256, for pip's --require-hashes
        dependencies-<digest>.tar    third-party wheels; changes rarely
        edge_agent-<version>-py3-none-any.whl
        edge-agent.service  the systemd unit from that wheel

The same sources and pinned versions result in the same file names and digests.
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
# 1980 is the first year that a zip archive can store.
SOURCE_DATE_EPOCH = "315532800"


def main() -> int:
    """Parse the command line, build the wheelhouse, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fleet.wheelhouse", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--python", default="3.11", metavar="X.Y", help="Python version of the devices (3.11: Debian 12)"
    )
    parser.add_argument(
        "--architecture", choices=("x86_64", "aarch64"), default="x86_64", help="architecture of the devices"
    )
    parser.add_argument("--glibc", default="2.36", metavar="X.Y", help="glibc version of the devices (2.36: Debian 12)")
    parser.add_argument("--extras", default="onnx,litert", help="runtimes to include (onnx,litert)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="output folder (dist/wheelhouse)")
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
    """Build the wheelhouse for one combination of Python version, architecture and C library.

    An existing wheelhouse for this combination is replaced only after the new one is complete. The third-party wheels
    of an earlier wheelhouse are reused if neither these arguments nor the pinned versions have changed.

    Args:
        output: The folder that contains all wheelhouses.
        python: The Python version of the devices, such as 3.11.
        architecture: The processor architecture of the devices: `x86_64` or `aarch64`.
        glibc: The version of the devices' C library, such as 2.36.
        extras: The optional dependencies (extras) of the agent's package to include, separated by commas.
        previous: The earlier wheelhouse whose third-party wheels can be reused; None selects the wheelhouse that is
            replaced.

    Returns:
        The folder of the wheelhouse.

    Raises:
        WheelhouseError: Pip found no suitable wheel, or could not reach a package index.
    """
    folder = output / f"cp{python.replace('.', '')}-{architecture}"
    output.mkdir(parents=True, exist_ok=True)
    inputs = _inputs(python, architecture, glibc, extras)
    with tempfile.TemporaryDirectory(dir=output, prefix=".building-") as name:
        work = Path(name)
        new = work / "made"
        new.mkdir()
        agent = _agent(work / "agent")
        shutil.copy(agent, new / agent.name)
        archived = _reuse_dependencies(previous or folder, inputs, new)
        if archived is None:
            wheels = work / "wheels"
            _download(agent, extras, wheels, python, architecture, glibc)
            (wheels / agent.name).unlink(missing_ok=True)
            archived = _tar(wheels, new), [_line(file) for file in wheels.iterdir()]
        dependencies, lines = archived
        requirements = "\n".join(sorted([*lines, _line(agent)])) + "\n"
        (new / "requirements.txt").write_text(requirements, encoding="utf-8")
        with zipfile.ZipFile(agent) as archive:
            (new / "edge-agent.service").write_bytes(archive.read(UNIT))
        facts = {
            "digest": hashlib.sha256(requirements.encode()).hexdigest()[:12],
            "python": python,
            "architecture": architecture,
            "agent": agent.name,
            "dependencies": dependencies.name,
            "dependencies_digest": dependencies.stem.rpartition("-")[2],
            "inputs": inputs,
        }
        (new / "wheelhouse.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(work / "old")
        new.rename(folder)
    return folder


def _inputs(*options: str) -> str:
    """Return a digest of everything that determines the third-party wheels."""
    files = [REPOSITORY / "constraints.txt", REPOSITORY / "device" / "pyproject.toml"]
    return hashlib.sha256(repr((options, [file.read_bytes() for file in files])).encode()).hexdigest()[:12]


def _reuse_dependencies(previous: Path, inputs: str, folder: Path) -> tuple[Path, list[str]] | None:
    """Link the archive of third-party wheels from an earlier wheelhouse into `folder`.

    Return the archive and the lines of requirements.txt about its wheels. Return None if the earlier wheelhouse is
    incomplete, or if the inputs of its wheels (`_inputs`) differ.
    """
    try:
        facts = json.loads((previous / "wheelhouse.json").read_text(encoding="utf-8"))
        lines = (previous / "requirements.txt").read_text(encoding="utf-8").splitlines()
        if facts.get("inputs") != inputs:
            return None
        path = folder / facts["dependencies"]
        path.hardlink_to(previous / path.name)
    except (FileNotFoundError, ValueError):
        return None
    return path, [line for line in lines if not line.startswith("edge-agent==")]


def _pip(*arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH},
        check=False,
    )
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        raise WheelhouseError(
            f"pip {arguments[0]}",
            "\n    ".join(errors or result.stderr.splitlines()[-5:]),
            "wheels for the device's Python, architecture and C library",
            "check that each pinned version has such a wheel, and that a package index can be reached",
        )


def _agent(folder: Path) -> Path:
    """Build the agent's wheel from a copy of the agent's sources, and return the path of the wheel.

    In the original folder, setuptools would write files next to the sources, and would pack files that earlier builds
    left there.
    """
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
    """Pack the wheels into one file, whose name contains a digest of the wheels.

    Without this file, Ansible would copy the forty wheels one by one, which would take a minute.
    """
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
