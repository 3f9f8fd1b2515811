"""Fault points: named places at which a test kills the agent or makes an operation fail.

Fault points are like the failpoints of etcd (gofail) and FreeBSD (fail(9)). A test sets the environment variable
EDGE_AGENT_FAULT. In production the variable is not set, and a fault point costs one comparison.

    EDGE_AGENT_FAULT=install.before_rename=kill      SIGKILL to this process, like a crash or the OOM killer
    EDGE_AGENT_FAULT=install.before_rename=error     OSError EIO, like a worn memory card
    EDGE_AGENT_FAULT=install.before_rename=nospace   OSError ENOSPC
    EDGE_AGENT_FAULT=install.before_rename=quota     OSError EDQUOT
    EDGE_AGENT_FAULT=install.before_rename=readonly  OSError EROFS
    EDGE_AGENT_FAULT=download.chunk=kill#3           SIGKILL when the process reaches the point for the third time
    EDGE_AGENT_FAULT=state.before_write=error#1+     OSError EIO at the first time and every later time
"""

from __future__ import annotations

import errno
import os
import signal

VARIABLE = "EDGE_AGENT_FAULT"
ERRORS = {"error": errno.EIO, "nospace": errno.ENOSPC, "quota": errno.EDQUOT, "readonly": errno.EROFS}

# All fault points. `point` refuses other names, so that a test that goes through this list covers every fault point.
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
    """Inject a fault if the environment variable EDGE_AGENT_FAULT names the fault point `name`.

    The agent calls this function at every fault point.
    """
    setting = os.environ.get(VARIABLE)
    if setting is None:
        return
    assert name in POINTS, f"{name} is not in fault_points.POINTS"
    requested, _, action = setting.partition("=")
    if requested != name:
        return
    action, _, at = action.partition("#")
    _passed[setting] = _passed.get(setting, 0) + 1
    first, repeats = int(at.rstrip("+") or 1), at.endswith("+")
    if _passed[setting] < first or (_passed[setting] > first and not repeats):
        return
    # This line tells a test that the fault was injected, even if a retry hides the effect.
    os.write(2, f"fault: {setting}\n".encode())
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(ERRORS[action], os.strerror(ERRORS[action]), name)
