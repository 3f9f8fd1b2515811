"""`agent_command`: run one command on a device in a single exchange, and unpack an archive there first if needed.

Ansible's `command` copies a Python program to the device and starts it, and `unarchive` needs several exchanges. A
rollout only needs to send an archive and a command line, and to receive JSON.

argv      list: the command
archive   tar file on the controller: unpacked into `into` before the command, which is not run if unpacking fails
into      folder on the device
remove    path on the device that is removed afterwards, also after a failure
limit_s   time limit in seconds for the whole exchange. A slower device counts as unreachable, like a device that is
          switched off, so that a hanging program on one device delays no other device. A command that has started on
          the device can still finish there. The copied part of a large archive stays in Ansible's temporary folder

Returns rc, stdout, stderr, argv; fails if rc is not 0, as `command` does.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

# An archive up to this many bytes is sent with the command, from the memory of each fork. A larger one is copied first.
IN_MEMORY = 16_000_000
# If unpacking fails, the rest of the archive is still read, because Ansible would report a lost connection if it could
# not send the whole archive.
UNPACK = "tar -xof - -C {into} || {{ rc=$?; cat >/dev/null; exit $rc; }}"
UNPACK_COPY = "tar -xof {source} -C {into}; rc=$?; rm -f {source}; exit $rc"


class ActionModule(ActionBase):
    def run(self, tmp: Any = None, task_vars: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        _, arguments = self.validate_argument_spec(
            {
                "argv": {"type": "list", "elements": "str", "required": True},
                "archive": {"type": "path"},
                "into": {"type": "path"},
                "remove": {"type": "path"},
                "limit_s": {"type": "float", "required": True},
            },
            required_together=[("archive", "into")],
        )
        result = super().run(tmp, task_vars)
        if self._task.check_mode:
            return {**result, "skipped": True}
        with _time_limit(arguments["limit_s"]):
            return {**result, **self._execute(arguments)}

    def _execute(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        command, data = shlex.join(arguments["argv"]), b"\n"  # without input, ssh would open a terminal
        if arguments["archive"]:
            unpack, data = self._unpack_command(Path(arguments["archive"]), arguments["into"])
            command = f"({unpack}) && {command}"
        if arguments["remove"]:
            command = f"{command}; rc=$?; rm -rf {shlex.quote(arguments['remove'])}; exit $rc"
        result = dict(self._low_level_execute_command(command, in_data=data))
        self._remove_tmp_path(self._connection._shell.tmpdir)
        result |= {"argv": arguments["argv"], "changed": True}
        if result["rc"] != 0:
            result |= {"failed": True, "msg": "non-zero return code"}
        return result

    def _unpack_command(self, archive: Path, into: str) -> tuple[str, bytes]:
        """Return the command that unpacks the archive on the device, and its standard input."""
        if archive.stat().st_size <= IN_MEMORY:
            return UNPACK.format(into=shlex.quote(into)), archive.read_bytes()
        source = self._transfer_file(str(archive), self._connection._shell.join_path(self._make_tmp_path(), "push"))
        self._fixup_perms2((self._connection._shell.tmpdir, source))
        return UNPACK_COPY.format(source=shlex.quote(source), into=shlex.quote(into)), b"\n"


class _TimeLimitError(BaseException):
    """The time limit has passed. It is not an Exception, because the ssh connection retries after an Exception."""


@contextlib.contextmanager
def _time_limit(limit_s: float) -> Iterator[None]:
    """Raise AnsibleConnectionFailure after `limit_s` seconds. Each task of each device runs in a separate process."""
    if limit_s <= 0:
        raise AnsibleActionFail(f"limit_s: found {limit_s:g}, expected seconds, more than 0")

    def on_alarm(number: int, frame: Any) -> None:
        raise _TimeLimitError

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _TimeLimitError as error:
        _end_processes(error.__traceback__)
        raise AnsibleConnectionFailure(f"no answer within {limit_s:g} s") from None
    finally:
        signal.signal(signal.SIGALRM, before)


def _end_processes(trace: TracebackType | None) -> None:
    """End the process that a connection was waiting for: ssh, or a simulated device's shell with all its children."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a local shell is in the process group of this process
    for frame, _ in traceback.walk_tb(trace):
        for process in list(frame.f_locals.values()):
            if isinstance(process, subprocess.Popen) and process.poll() is None:
                with contextlib.suppress(OSError):  # a process of another user cannot be ended
                    group = os.getpgid(process.pid)
                    if group in (process.pid, os.getpid()):
                        os.killpg(group, signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
