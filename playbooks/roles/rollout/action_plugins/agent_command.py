"""`agent_command`: one command on a device in one exchange over the connection, and before it what it needs there.

Ansible's `command` brings a Python program to the device and starts it, `unarchive` takes a device several times to and
fro. What a rollout has to say to a device is an archive and a command line, and what it hears is JSON.

argv      list: the command
archive   file on the controller, a tar: unpacked into `into` before the command; without that the command is not run
into      folder on the device
remove    path on the device that is removed afterwards, whatever happened
limit_s   seconds that all of it may take. A device that takes longer is unreachable, as one that is off is: a program
          that hangs on one device keeps no other waiting. What has begun there may still come to its end; of a large
          archive that was being copied, what has come stays in Ansible's temporary folder

Returns rc, stdout, stderr, argv; fails where rc is not 0, as `command` does.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

# An archive up to this goes with the command; each fork has it in memory. A larger one is copied to the device first.
IN_MEMORY = 16_000_000
# Of an archive that cannot be unpacked the rest is read all the same: a sender that is not heard out takes it for a
# lost connection.
UNPACK = "tar -xof - -C {into} || {{ rc=$?; cat >/dev/null; exit $rc; }}"
UNPACK_COPY = "tar -xof {source} -C {into}; rc=$?; rm -f {source}; exit $rc"


class ActionModule(ActionBase):
    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        _, given = self.validate_argument_spec(
            {
                "argv": {"type": "list", "elements": "str", "required": True},
                "archive": {"type": "path"},
                "into": {"type": "path"},
                "remove": {"type": "path"},
                "limit_s": {"type": "float", "required": True},
            },
            required_together=[("archive", "into")],
        )
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.check_mode:
            return {**result, "skipped": True}
        with _within(given["limit_s"]):
            return result | self._said(given)

    def _said(self, given: dict[str, Any]) -> dict[str, Any]:
        command, data = shlex.join(given["argv"]), b"\n"  # with nothing to read, ssh would open a terminal
        if given["archive"]:
            unpack, data = self._brought(Path(given["archive"]), given["into"])
            command = f"({unpack}) && {command}"
        if given["remove"]:
            command = f"{command}; rc=$?; rm -rf {shlex.quote(given['remove'])}; exit $rc"
        result: dict[str, Any] = self._low_level_execute_command(command, in_data=data)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        result |= {"argv": given["argv"], "changed": True}
        if result["rc"] != 0:
            result |= {"failed": True, "msg": "non-zero return code"}
        return result

    def _brought(self, archive: Path, into: str) -> tuple[str, bytes]:
        """The command that unpacks it on the device, and what that reads."""
        if archive.stat().st_size <= IN_MEMORY:
            return UNPACK.format(into=shlex.quote(into)), archive.read_bytes()
        source = self._transfer_file(str(archive), self._connection._shell.join_path(self._make_tmp_path(), "push"))
        self._fixup_perms2((self._connection._shell.tmpdir, source))
        return UNPACK_COPY.format(source=shlex.quote(source), into=shlex.quote(into)), b"\n"


class _LateError(BaseException):
    """No Exception: the ssh connection tries again after any of those."""


@contextlib.contextmanager
def _within(limit_s: float) -> Iterator[None]:
    """Raises AnsibleConnectionFailure after that time. Each task of each device is a process of its own."""
    if limit_s <= 0:
        raise AnsibleActionFail(f"limit_s: found {limit_s:g}, expected seconds, more than 0")

    def ring(number: int, frame: Any) -> None:
        raise _LateError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _LateError as late:
        _end(late.__traceback__)
        raise AnsibleConnectionFailure(f"no answer within {limit_s:g} s") from None
    finally:
        signal.signal(signal.SIGALRM, before)


def _end(where: TracebackType | None) -> None:
    """Ends what a connection was waiting for: ssh, or a simulated device's shell with all that it started."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a local shell is in the group of this process
    for frame, _ in traceback.walk_tb(where):
        for process in list(frame.f_locals.values()):
            if isinstance(process, subprocess.Popen) and process.poll() is None:
                with contextlib.suppress(OSError):  # another user's: it is left there
                    group = os.getpgid(process.pid)
                    if group in (process.pid, os.getpid()):
                        os.killpg(group, signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
