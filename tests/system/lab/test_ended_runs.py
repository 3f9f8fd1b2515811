"""A test run that is ended by a signal leaves no device, mount or bridge behind (real pytest, two workers)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.labs import is_removed, need_lab, remains_of
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow

START_S = 60.0
END_S = 60.0
TEST_MODULE = """\
import signal, socket
from lab import Lab

def test_a_lab_runs():
    with Lab(1) as lab, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(lab.id.encode(), "{address}")
        signal.pause()
"""


class Run:
    """A pytest with two workers in a separate process group. Each worker runs a test whose lab is up."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        for name in ("test_first.py", "test_second.py"):
            (folder / name).write_text(TEST_MODULE.format(address=folder / "ready.sock"))
        options = ["-p", "no:cacheprovider", "-p", "tests.support.end_on_signal", "-n", "2", "--dist", "loadscope"]
        # A separate folder: otherwise a run would remove the files of this user's earlier runs, which takes minutes.
        options += ["--basetemp", str(folder / "temporary")]
        with self.output.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), "-c", os.devnull, str(folder)],
                cwd=REPOSITORY,
                env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # The default action for SIGINT, which a shell's `&` would disable.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.labs: list[str] = []

    def wait_for_labs(self, channel: socket.socket) -> None:
        try:
            self.labs = [channel.recv(16).decode() for _ in range(2)]
        except TimeoutError:
            self.end(signal.SIGTERM, group=True)
            pytest.fail(self.output.read_text())

    def end(self, number: signal.Signals, group: bool) -> int:
        """Send the signal to the main process or, with `group`, also to the workers, and return the exit code."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        return self.process.wait(END_S)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    need_lab()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "ready.sock"))
        channel.settimeout(START_S)
        test_run = Run(tmp_path)
        test_run.wait_for_labs(channel)
    assert all(remains_of(each) for each in test_run.labs)
    return test_run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "group",
    [
        pytest.param(False, id="the main process"),
        pytest.param(True, id="every process", marks=pytest.mark.exhaustive),
    ],
)
def test_an_interrupted_run_has_cleaned_up_when_it_ends(run: Run, number: signal.Signals, group: bool) -> None:
    assert run.end(number, group) == pytest.ExitCode.INTERRUPTED

    assert [remains_of(each) for each in run.labs] == [[], []]


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(False, id="the main process", marks=pytest.mark.exhaustive),
        pytest.param(True, id="every process"),
    ],
)
def test_after_a_killed_run_everything_is_removed_automatically(run: Run, group: bool) -> None:
    """Workers that survive the SIGKILL end in order; the watchers clean up for the killed ones."""
    assert run.end(signal.SIGKILL, group) == -signal.SIGKILL

    assert all(is_removed(each) for each in run.labs)
