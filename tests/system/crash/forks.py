"""Start the agent's command line in processes that are ready in milliseconds, forked from one with all imports.

A test that kills a command needs it in a separate process. There are hundreds of commands, and half a second of imports
for each would be most of a test's time. `python -m tests.system.crash.forks SOCKET` is the fork server: it has one
thread and only forks. For each command it forks a keeper, which starts the command and reports how it ended.
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

# For tests of the tests: which of the agent's flushes take place: `everything`, `directories` or `nothing`.
FLUSHES = "CRASH_TEST_FLUSHES"
# Removes what a killed test leaves: disks mounted below the folder, the latest first, and the folder.
REMOVE = """\
grep -F " $1/" /proc/self/mounts | cut -d" " -f2 | tac | xargs -r umount --lazy
rm -rf "$1"
"""
PR_SET_PDEATHSIG = 1


class Process:
    """A running command, with the part of subprocess.Popen's interface that the tests need."""

    def __init__(self, address: str, request: Mapping[str, Any]) -> None:
        self._channel = socket.socket(socket.AF_UNIX)
        self._channel.connect(address)
        self._answers = self._channel.makefile("r")
        self._channel.sendall(json.dumps(request).encode() + b"\n")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None
        # Not the number, which another process may have by the time a signal is sent.
        self._descriptor = os.pidfd_open(self.pid)
        weakref.finalize(self, os.close, self._descriptor)
        self._channel.sendall(b"held\n")

    def wait(self, timeout: float = 60) -> int:
        """Wait for the end and return the exit code, or a signal as a negative number. Raises TimeoutError."""
        if self.returncode is None:
            self._channel.settimeout(timeout)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._channel.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit code, or None if the command still runs."""
        if self.returncode is None:
            try:
                self._channel.settimeout(0)
                ended = bool(self._channel.recv(1, socket.MSG_PEEK))
            except BlockingIOError:
                return None
            assert ended, "the keeper has ended"
            self.wait(1)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the command; do nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """A client of the fork server."""

    def __init__(self, address: str) -> None:
        self._address = address

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        """Start `edge-agent ARGUMENTS` with stdout and stderr in `log`."""
        return Process(self._address, {"arguments": list(arguments), "environment": dict(environment), "log": str(log)})


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Create a folder, in memory if possible: the tests flush thousands of times. Its path is short, for sockets.

    At the end it is removed with everything mounted in it, also if this process is killed.
    """
    memory = Path("/dev/shm")  # noqa: S108  (a separate folder is created in it)
    with (
        tempfile.TemporaryDirectory(prefix="crash-", dir=memory if memory.is_dir() else None) as name,
        Watcher("sh", "-c", REMOVE, "remove", name),
    ):
        yield Path(name)


@contextlib.contextmanager
def forks(place: Path, **environment: str) -> Iterator[Forks]:
    """Run the fork server with its socket in `place`, a short path. `environment` is set during its imports."""
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
        assert server.stdout.readline() == "ready\n", "the fork server did not start; see its message above"
        yield Forks(address)
    finally:
        server.kill()
        server.wait()


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends. Processes that it forks do not inherit this."""
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

    def flush_directories(descriptor: int) -> None:
        if what == "directories" and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            flush(descriptor)

    if what != "everything":
        os.fsync = flush_directories  # type: ignore[assignment]


def _keep(channel: socket.socket) -> None:
    """Start the requested command, and report its process id and how it ended."""
    end_with_parent()
    with channel.makefile("rw") as stream:
        request = json.loads(stream.readline())
        pid = os.fork()
        if pid == 0:
            channel.close()
            _command(request)
        stream.write(f"{pid}\n")
        stream.flush()
        stream.readline()  # until the caller has opened its descriptor
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(BrokenPipeError):  # the caller has ended
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
