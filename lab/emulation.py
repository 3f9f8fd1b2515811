"""Run aarch64 programs on this machine: the kernel passes them to qemu-user while a binfmt_misc handler is registered.

A handler is registered in the mount namespace of the programs. Since Linux 6.7, the kernel removes the handler together
with the last mount of binfmt_misc. In older kernels, or if another process has binfmt_misc mounted, `unregister`
removes the handler. If there are several handlers, the kernel uses the latest one. All handlers registered here are
equal.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from lab.cleanup import Watcher

# A shell in a separate mount namespace: its mounts disappear with its last process.
ALONE = ("unshare", "--mount", "--propagation", "private", "sh", "-euc")
PROGRAMS = {"qemu-aarch64-static": "qemu-user-static"}
# The first bytes of an ELF file for aarch64 (qemu's scripts/qemu-binfmt-conf.sh).
MAGIC = (
    r"M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
)
# F: the kernel opens qemu now, so that a root without qemu can use it too. C: setuid bits (sudo) are honoured.
FLAGS = "CF"
HANDLERS = "/proc/sys/fs/binfmt_misc"
MOUNT = f"test -e {HANDLERS}/register || mount -t binfmt_misc binfmt_misc {HANDLERS}"
REMOVE = f"""\
{MOUNT}
if test -e "{HANDLERS}/$handler"; then echo -1 >"{HANDLERS}/$handler"; fi
"""


def unsupported() -> str:
    """Return why this machine cannot emulate aarch64 with any installed program; empty if it can."""
    # On such a machine, the handler would also apply to all other programs.
    return (
        "this machine is an aarch64 machine itself: emulation is not supported on it"
        if platform.machine() == "aarch64"
        else ""
    )


@contextmanager
def emulated(handler: str, enabled: bool = True) -> Iterator[str]:
    """Yield the lines with which a script for ALONE enables aarch64 programs; no lines if not `enabled`."""
    if not enabled:
        yield ""
        return
    with Watcher(*_unregister_command(handler)):
        try:
            yield register(handler)
        finally:
            unregister(handler)


def register(handler: str) -> str:
    """Return the lines of a script for ALONE that register a handler or replace the handler of that name."""
    rule = f":{handler}:{MAGIC}:{shutil.which('qemu-aarch64-static')}:{FLAGS}"
    return f"handler={handler}\n{REMOVE}printf '%s' '{rule}' >{HANDLERS}/register\n"


def unregister(handler: str) -> None:
    """Remove a handler. Has no effect if the kernel has removed it already."""
    subprocess.run(_unregister_command(handler), check=True)


def _unregister_command(handler: str) -> list[str]:
    return [*ALONE, f"handler={handler}\n{REMOVE}"]
