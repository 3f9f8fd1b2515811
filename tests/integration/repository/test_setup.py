"""`make setup` installs the right build of torch and replaces an incomplete environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY
from tests.support.stages.clone import call

pytestmark = pytest.mark.slow  # each creates an environment

FILES = (
    "Makefile",
    "pyproject.toml",
    "device/pyproject.toml",
    "constraints.txt",
    "constraints-dev.txt",
    "constraints-signing.txt",
    ".ci/torch",
)
# Programs that download are replaced; the environments are real.
REPLACED = ("PIP=true", "SIGNING_PIP=true", "INSTALL_TORCH=true", f"PYTHON={sys.executable}")
PACKAGES = Path(".venv/lib/python3.11/site-packages")
MARKER = PACKAGES / "marker.py"  # a file that no longer exists if the environment was created again


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that `make setup` reads, and an environment that it has created."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    setup(tmp_path)
    (tmp_path / MARKER).touch()
    return tmp_path


def setup(folder: Path, *options: str) -> None:
    (folder / ".venv/.ready").unlink(missing_ok=True)
    call(folder, "make", "setup", *REPLACED, *options)


def test_after_a_killed_setup_the_environment_is_created_again(checkout: Path) -> None:
    """It was killed in pip, or in venv before pip was there. The environment of a complete setup is kept."""
    setup(checkout)
    assert (checkout / MARKER).exists()

    (checkout / ".venv/.installing").touch()
    setup(checkout)
    assert not (checkout / MARKER).exists()

    (checkout / MARKER).touch()
    shutil.rmtree(checkout / PACKAGES / "pip")
    setup(checkout)
    assert not (checkout / MARKER).exists() and (checkout / PACKAGES / "pip").is_dir()
    assert not (checkout / ".venv/.installing").exists()


def test_pip_unpacks_beside_the_environment_and_leaves_nothing_there(checkout: Path) -> None:
    """The system's folder for temporary files may be a small file system in memory."""
    setup(checkout, """PIP=sh -c 'test -d "$$TMPDIR" && printenv TMPDIR > used' --""")

    assert (checkout / "used").read_text() == f"{checkout}/.venv/tmp\n"
    assert not (checkout / ".venv/tmp").exists()


def test_an_environment_keeps_its_build_of_torch_until_another_is_requested(checkout: Path) -> None:
    assert (checkout / ".venv/.torch").read_text() == "cpu\n"

    call(checkout, "make", "setup", *REPLACED, "TORCH=cuda")  # .ready exists: only the other build makes it run
    assert (checkout / ".venv/.torch").read_text() == "cuda\n"
    assert not (checkout / MARKER).exists(), "the requirements of the other build must not remain"

    (checkout / MARKER).touch()
    setup(checkout)
    assert (checkout / ".venv/.torch").read_text() == "cuda\n" and (checkout / MARKER).exists()


def wheel(folder: Path, version: str, *requires: str) -> None:
    """Write a wheel of a package torch with only a version into a package index below `folder`."""
    (folder / "torch").mkdir(parents=True, exist_ok=True)
    name = f"torch-{version}"
    required = [f"Requires-Dist: {each}" for each in requires]
    described = "\n".join(["Metadata-Version: 2.1", "Name: torch", f"Version: {version}", *required])
    with zipfile.ZipFile(folder / "torch" / f"{name}-py3-none-any.whl", "w") as archive:
        archive.writestr("torch/__init__.py", f"__version__ = {version!r}\n")
        archive.writestr(f"{name}.dist-info/METADATA", described + "\n")
        archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{name}.dist-info/RECORD", "")
    links = "".join(f'<a href="{file.name}">{file.name}</a>' for file in (folder / "torch").glob("*.whl"))
    (folder / "torch" / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


def pinned_torch() -> str:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return next(line.removeprefix("torch==") for line in lines if line.startswith("torch=="))


def install_torch(folder: Path, build: str) -> str:
    """Run .ci/torch with the two indexes below `folder` and return the version that it installed."""
    target = folder / build
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": (folder / "public").as_uri(),
        "PIP_TARGET": str(target),
        "TORCH_CPU_INDEX": (folder / "cpu-builds").as_uri(),
    }
    subprocess.run([sys.executable, REPOSITORY / ".ci/torch", build], env=environment, check=True, timeout=120)
    (installed,) = metadata.distributions(path=[str(target)])
    return installed.version


@pytest.mark.skipif(sys.platform != "linux", reason="the plain build has no CUDA elsewhere; run it on Linux")
def test_without_a_gpu_torch_is_the_cpu_build(tmp_path: Path) -> None:
    """The package index has the CUDA build under the plain version; the CPU build comes from torch's own index."""
    version = pinned_torch()
    wheel(tmp_path / "public", version, 'nvidia-cublas==13.1; platform_system == "Linux"', "filelock")
    wheel(tmp_path / "cpu-builds", f"{version}+cpu", "filelock")

    assert install_torch(tmp_path, "cpu") == f"{version}+cpu"
    assert install_torch(tmp_path, "cuda") == version


def test_if_the_plain_build_is_for_cpus_no_other_index_is_used(tmp_path: Path) -> None:
    version = pinned_torch()
    wheel(tmp_path / "public", version, "filelock")

    assert install_torch(tmp_path, "cpu") == version


def test_an_unknown_build_is_refused_by_name() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / ".ci/torch", "rocm"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr == "error: TORCH='rocm'; expected: cpu or cuda; remedy: make setup TORCH=cpu\n"


def test_no_cuda_library_is_installed_unless_it_was_requested() -> None:
    """nvidia-ml-py, which DVCLive requires, is pure Python: it reads metrics from a driver if there is one."""
    chosen = REPOSITORY / ".venv/.torch"
    if chosen.is_file() and chosen.read_text().strip() == "cuda":
        assert metadata.version("torch") == pinned_torch()
        return
    names = {distribution.name.lower() for distribution in metadata.distributions()}

    assert {name for name in names if name.startswith(("nvidia", "cuda", "triton"))} <= {"nvidia-ml-py"}
