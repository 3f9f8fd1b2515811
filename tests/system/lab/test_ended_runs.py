"""A test run that somebody ends leaves no device, mount or bridge behind: a real pytest with two workers and labs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.labs import gone, left, need_lab
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow

START_S = 60.0
END_S = 60.0
STANDING = """\
import signal, socket
from lab import Lab

def test_a_lab_stands():
    with Lab(1) as made, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(made.id.encode(), "{told}")
        signal.pause()
"""


class Run:
    """pytest and its two workers, in a process group of their own, each worker in a test whose lab stands."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        for name in ("test_first.py", "test_second.py"):
            (folder / name).write_text(STANDING.format(told=folder / "told"))
        options = ["-p", "no:cacheprovider", "-p", "tests.support.ending", "-n", "2", "--dist", "loadscope"]
        # A folder of its own: else a run removes at its end what earlier runs of this user left, which takes minutes.
        options += ["--basetemp", str(folder / "temporary")]
        with self.output.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), "-c", os.devnull, str(folder)],
                cwd=REPOSITORY,
                env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.labs: list[str] = []

    def stand(self, told: socket.socket) -> None:
        try:
            self.labs = [told.recv(16).decode() for _ in range(2)]
        except TimeoutError:
            self.end(signal.SIGTERM, group=True)
            pytest.fail(self.output.read_text())

    def end(self, number: signal.Signals, group: bool) -> int:
        """Sends the signal to the main process, or to the workers as well."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        return self.process.wait(END_S)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    need_lab()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "told"))
        told.settimeout(START_S)
        made = Run(tmp_path)
        made.stand(told)
    assert all(left(each) for each in made.labs)
    return made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "group",
    [
        pytest.param(False, id="the main process"),
        pytest.param(True, id="every process", marks=pytest.mark.exhaustive),
    ],
)
def test_a_run_that_is_told_to_end_has_cleaned_up_when_it_ends(run: Run, number: signal.Signals, group: bool) -> None:
    assert run.end(number, group) == pytest.ExitCode.INTERRUPTED

    assert [left(each) for each in run.labs] == [[], []]


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(False, id="the main process", marks=pytest.mark.exhaustive),
        pytest.param(True, id="every process"),
    ],
)
def test_what_a_killed_run_left_goes_by_itself(run: Run, group: bool) -> None:
    """kill -9: workers that live on end in order; the watchers of those that do not clean up."""
    assert run.end(signal.SIGKILL, group) == -signal.SIGKILL

    assert all(gone(each) for each in run.labs)
