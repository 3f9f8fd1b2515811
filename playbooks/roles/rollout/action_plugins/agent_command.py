"""`agent_command`: one command on a device in one exchange over the connection, and before it what it needs there.

Ansible's `command` brings a Python program to the device and starts it, `unarchive` takes a device several times to and
fro. What a rollout has to say to a device is an archive and a command line, and what it hears is JSON.

argv      list: the command
archive   file on the controller, a tar: unpacked into `into` before the command; without that the command is not run
into      folder on the device
remove    path on the device that is removed afterwards, whatever happened

Returns rc, stdout, stderr, argv; fails where rc is not 0, as `command` does.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# An archive up to this goes with the command; each fork has it in memory. A larger one is copied to the device first.
IN_MEMORY = 16_000_000
# Of an archive that cannot be unpacked the rest is read all the same: a sender that is not heard out takes it for a
# lost connection.
UNPACK = "tar -xof {source} -C {into} || {{ rc=$?; cat >/dev/null; exit $rc; }}"


class ActionModule(ActionBase):
    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        _, given = self.validate_argument_spec(
            {
                "argv": {"type": "list", "elements": "str", "required": True},
                "archive": {"type": "path"},
                "into": {"type": "path"},
                "remove": {"type": "path"},
            },
            required_together=[("archive", "into")],
        )
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.check_mode:
            return {**result, "skipped": True}
        command, data = shlex.join(given["argv"]), b"\n"  # with nothing to read, ssh would open a terminal
        if given["archive"]:
            unpack, data = self._brought(Path(given["archive"]), given["into"])
            command = f"({unpack}) && {command}"
        if given["remove"]:
            command = f"{command}; rc=$?; rm -rf {shlex.quote(given['remove'])}; exit $rc"
        result |= self._low_level_execute_command(command, in_data=data)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        result |= {"argv": given["argv"], "changed": True}
        if result["rc"] != 0:
            result |= {"failed": True, "msg": "non-zero return code"}
        return result

    def _brought(self, archive: Path, into: str) -> tuple[str, bytes]:
        """The command that unpacks it on the device, and what that reads."""
        source, data = "-", b"\n"
        if archive.stat().st_size <= IN_MEMORY:
            data = archive.read_bytes()
        else:
            source = self._transfer_file(str(archive), self._connection._shell.join_path(self._make_tmp_path(), "push"))
            self._fixup_perms2((self._connection._shell.tmpdir, source))
        return UNPACK.format(source=shlex.quote(source), into=shlex.quote(into)), data
