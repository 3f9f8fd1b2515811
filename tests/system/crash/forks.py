"""The real command line in real processes that start in milliseconds: forked from one that has imported everything.

A process that a test kills must be one of its own, and there are hundreds of them; half a second of imports for each
would be most of the test. `python -m tests.system.crash.forks SOCKET` is the one that forks: it has one thread and does
nothing else. A keeper stands between it and each command, waits, and tells how it ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.cleanup import Watcher
from tests.support.paths import REPOSITORY

# For tests of the tests: `everything` (as it is), `directories` or `nothing` of what the agent flushes is flushed.
FLUSHES = "CRASH_TEST_FLUSHES"
# What a killed test leaves: disks that are mounted below the folder, the latest first, and the folder.
REMOVE = """\
grep -F " $1/" /proc/self/mounts | cut -d" " -f2 | tac | xargs -r umount --lazy
rm -rf "$1"
"""
PR_SET_PDEATHSIG = 1


class Process:
    """A command that runs; as subprocess.Popen, as far as the tests need it."""

    def __init__(self, address: str, request: Mapping[str, Any]) -> None:
        self._channel = socket.socket(socket.AF_UNIX)
        self._channel.connect(address)
        self._answers = self._channel.makefile("r")
        self._channel.sendall(json.dumps(request).encode() + b"\n")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None
        # Not the number: that may be another process' by the time a signal is sent.
        self._descriptor = os.pidfd_open(self.pid)
        weakref.finalize(self, os.close, self._descriptor)
        self._channel.sendall(b"held\n")

    def wait(self, timeout: float = 60) -> int:
        """How it ended: an exit code, or a signal as negative number. Raises TimeoutError."""
        if self.returncode is None:
            self._channel.settimeout(timeout)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._channel.close()
        return self.returncode

    def poll(self) -> int | None:
        """How it ended, or None: it has not."""
        if self.returncode is None:
            try:
                self._channel.settimeout(0)
                ended = bool(self._channel.recv(1, socket.MSG_PEEK))
            except BlockingIOError:
                return None
            assert ended, "the keeper is gone"
            self.wait(1)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To a process that runs, or has ended and was not waited for."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that forks."""

    def __init__(self, address: str) -> None:
        self._address = address

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        """`edge-agent ARGUMENTS` with stdout and stderr in `log`."""
        return Process(self._address, {"arguments": list(arguments), "environment": dict(environment), "log": str(log)})


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory, where there is such: the tests flush thousands of times. Its path is short, for sockets.

    It is removed, and what is mounted in it is unmounted, also when this process is killed.
    """
    memory = Path("/dev/shm")  # noqa: S108  (in it a folder of its own is made)
    with (
        tempfile.TemporaryDirectory(prefix="crash-", dir=memory if memory.is_dir() else None) as name,
        Watcher("sh", "-c", REMOVE, "remove", name),
    ):
        yield Path(name)


@contextlib.contextmanager
def forks(place: Path, **environment: str) -> Iterator[Forks]:
    """Start it, with its socket in `place` (a short path), and end it. `environment`: what its imports shall see."""
    address = str(place / "forks.sock")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.system.crash.forks", address],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=REPOSITORY,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n", "the process that forks did not start; its message stands above"
        yield Forks(address)
    finally:
        server.kill()
        server.wait()


def end_with_parent() -> None:
    """When this process' parent ends, the kernel kills it. Holds for this process alone, not for those it forks."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(address: str) -> None:
    end_with_parent()
    import onnxruntime  # noqa: F401  (once, for all forks)
    from edge_agent.update import trust  # noqa: F401

    _flush_only(os.environ.get(FLUSHES, "everything"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(16)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
    while True:
        channel, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _keep(channel)
        channel.close()


def _flush_only(what: str) -> None:
    flush = os.fsync

    def some(descriptor: int) -> None:
        if what == "directories" and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            flush(descriptor)

    if what != "everything":
        os.fsync = some  # type: ignore[assignment]


def _keep(channel: socket.socket) -> None:
    """Start what is asked for, tell its process id, and how it ended."""
    end_with_parent()
    with channel.makefile("rw") as stream:
        request = json.loads(stream.readline())
        pid = os.fork()
        if pid == 0:
            channel.close()
            _command(request)
        stream.write(f"{pid}\n")
        stream.flush()
        stream.readline()  # until the caller has hold of it
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(BrokenPipeError):  # nobody wants to know
            stream.write(f"{code}\n")
            stream.flush()
    os._exit(0)


def _command(request: Mapping[str, Any]) -> None:
    from edge_agent.cli import main as cli_main

    end_with_parent()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    try:
        code = cli_main.main(request["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
