"""Root continues as the owner of the state; the error for any other user names a user with the right privileges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from edge_agent.core.errors import StorageError

from tests.support.agent.cli import Device
from tests.support.agent.releases import OLD, bare_device, two_releases

pytestmark = pytest.mark.slow  # each starts the program as another user

releases = pytest.fixture(two_releases)
device = pytest.fixture(bare_device)


def test_root_goes_on_as_the_owner_of_the_state(tmp_path: Path, as_root: list[str]) -> None:
    """The service can write the files that root creates."""
    script = f"""
import os, sys
from pathlib import Path
from edge_agent.cli import main as cli
folder = Path({str(tmp_path)!r}) / "state"
folder.mkdir()
os.chown(folder, 12345, 12346)
cli.become_owner(folder)
assert (os.getuid(), os.geteuid(), os.getgid(), os.getgroups()) == (12345, 12345, 12346, [12346])
(folder / "file").touch()
"""
    done = subprocess.run([*as_root, sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "state" / "file").stat().st_uid == 12345


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["serve"], "main.serve"),
        (["shadow", OLD], "inspection.shadow"),
        (["status"], "status.status"),
        (["samples", "export", "{folder}/out.jsonl"], "samples.export_lines"),
    ],
)
def test_nothing_that_runs_or_reads_a_release_is_done_as_root(
    device: Device, as_root: list[str], tmp_path: Path, arguments: list[str], module: str
) -> None:
    """A hook replaces the work and prints the user that it would run as."""
    place, name = module.split(".")
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    script = f"""
import os, sys
from edge_agent.cli import main as cli
from edge_agent.lifecycle import inspection, status
from edge_agent.monitoring import samples
from edge_agent.service import main
os.makedirs({str(device.config.layout.state)!r})
os.chown({str(device.config.layout.state)!r}, 12345, 12346)
def seen(*_, **__):
    print(os.geteuid(), os.getegid(), os.getgroups(), file=sys.stderr)
    return []
{place}.{name} = seen
cli._print = lambda *_: None
code = cli._exit_code(cli.parser().parse_args(["--config", {str(device.file)!r}, *{arguments!r}]))
sys.exit(code)
"""
    done = subprocess.run([*as_root, sys.executable, "-c", script], capture_output=True, text=True)

    assert "12345 12346 [12346]" in done.stderr.splitlines(), done.stderr
    if arguments[0] == "samples":
        assert done.returncode == 0
        assert (tmp_path / "out.jsonl").stat().st_uid == 0, "the file is the caller's"


@pytest.fixture
def as_root(tmp_path: Path) -> list[str]:
    """Return the prefix of a command that runs as root; the folders above `tmp_path` are opened to other users."""
    own = (folder for folder in (tmp_path, *tmp_path.parents) if folder.is_relative_to(tempfile.gettempdir()))
    for folder in own:
        if folder.stat().st_uid == os.getuid() and folder != Path(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o755)
    return [] if os.geteuid() == 0 else ["sudo", "-n", "--"]


def test_the_error_for_a_user_without_permission_names_the_right_user(device: Device, as_root: list[str]) -> None:
    device.json("install", OLD)
    script = f"""
import os, sys
from edge_agent.cli import main as cli
from edge_agent.core import progress
from edge_agent.lifecycle import inspection, operations, switching
from edge_agent.storage import slots
os.setgroups([])
os.setresgid(12347, 12347, 12347)
os.setresuid(12347, 12347, 12347)
sys.exit(cli.main(["--json", "--config", {str(device.file)!r}, "prune"]))
"""
    done = subprocess.run([*as_root, sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == StorageError.exit_code, done.stderr
    assert "run the command as root" in json.loads(done.stdout)["remedy"]
