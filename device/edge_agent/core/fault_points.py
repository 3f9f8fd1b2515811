"""Named points at which a test makes the agent die or an operation fail, as failpoints in etcd (gofail) and
FreeBSD (fail(9)) do. In production the environment variable is not set and a point costs one comparison.

    EDGE_AGENT_FAULT=install.renamed=kill        SIGKILL to this process, as a crash or the OOM killer does
    EDGE_AGENT_FAULT=install.renamed=error       OSError EIO, as a worn card does
    EDGE_AGENT_FAULT=install.renamed=nospace     OSError ENOSPC
    EDGE_AGENT_FAULT=download.chunk=kill#3       at the third time that the point is passed
"""

from __future__ import annotations

import errno
import os
import signal

VARIABLE = "EDGE_AGENT_FAULT"

# Every point there is. `point` refuses other names, so that a test which goes through this list misses none.
POINTS = (
    "download.before_request",
    "download.chunk",
    "download.before_fsync",
    "download.before_rename",
    "download.after_rename",
    "trust.before_refresh",
    "trust.after_refresh",
    "trust.before_write",
    "trust.after_write",
    "trust.before_fsync",
    "trust.before_rename",
    "trust.after_rename",
    "trust.after_directory_fsync",
    "install.before_unpack",
    "install.unpacked_one",
    "install.before_files_fsync",
    "install.after_files_fsync",
    "install.before_rename",
    "install.set_aside",
    "install.after_rename",
    "install.after_directory_fsync",
    "state.before_write",
    "state.after_write",
    "state.before_fsync",
    "state.before_rename",
    "state.after_rename",
    "state.after_directory_fsync",
    "link.before_rename",
    "link.after_rename",
    "selftest.before",
    "selftest.loaded",
    "selftest.after",
    "activate.before_switch",
    "activate.after_switch",
    "activate.before_notify",
    "activate.after_notify",
    "serve.before_boot",
    "serve.after_boot",
    "serve.before_load",
    "serve.after_load",
    "serve.before_swap",
    "serve.after_swap",
    "confirm.before",
    "confirm.after",
    "rollback.before",
    "rollback.after_state",
    "rollback.after",
    "prune.before_remove",
    "prune.after_remove",
)

_passed: dict[str, int] = {}


def point(name: str) -> None:
    """Does nothing, unless the environment names this point."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    assert name in POINTS, f"{name} is not in fault_points.POINTS"
    where, _, action = wanted.partition("=")
    if where != name:
        return
    action, _, at = action.partition("#")
    _passed[wanted] = _passed.get(wanted, 0) + 1
    if _passed[wanted] != int(at or 1):
        return
    # By this line a test knows that it has tested something: what an error does may well be hidden, by a retry.
    os.write(2, f"fault: {wanted}\n".encode())
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    numbers = {"error": errno.EIO, "nospace": errno.ENOSPC}
    raise OSError(numbers[action], os.strerror(numbers[action]), name)
