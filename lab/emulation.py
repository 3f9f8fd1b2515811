"""aarch64's programs on this machine: the kernel hands them to qemu-user for as long as a handler is registered.

A handler is registered in the mount namespace of those who need it. Since Linux 6.7 it goes with the last mount of
binfmt_misc; where something else has that mounted, and before 6.7, `forget` takes it away. Of several handlers the
kernel asks the latest, whoever registered it: all here are alike.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from lab.cleanup import Watcher

# A shell whose mounts go with its last process.
ALONE = ("unshare", "--mount", "--propagation", "private", "sh", "-euc")
PROGRAMS = {"qemu-aarch64-static": "qemu-user-static"}
# What an ELF file for aarch64 begins with (qemu's scripts/qemu-binfmt-conf.sh).
MAGIC = (
    r"M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
)
# F: qemu is found now, and runs in a root that does not have it. C: sudo's setuid bit counts.
FLAGS = "CF"
KNOWN = "/proc/sys/fs/binfmt_misc"
MOUNT = f"test -e {KNOWN}/register || mount -t binfmt_misc binfmt_misc {KNOWN}"
REMOVE = f"""\
{MOUNT}
if test -e "{KNOWN}/$handler"; then echo -1 >"{KNOWN}/$handler"; fi
"""


def unfit() -> str:
    """Why aarch64 is not emulated on this machine, whatever is installed; empty where it is."""
    # The handler would take every program of this machine's own.
    return "this machine is aarch64 itself: nothing is emulated here" if platform.machine() == "aarch64" else ""


@contextmanager
def emulated(handler: str, wanted: bool = True) -> Iterator[str]:
    """The first lines of a script for ALONE, whose programs may be aarch64's; none if not wanted."""
    if not wanted:
        yield ""
        return
    with Watcher(*_forgetting(handler)):
        try:
            yield register(handler)
        finally:
            forget(handler)


def register(handler: str) -> str:
    """Lines of a script for ALONE; a handler of that name is replaced."""
    rule = f":{handler}:{MAGIC}:{shutil.which('qemu-aarch64-static')}:{FLAGS}"
    return f"handler={handler}\n{REMOVE}printf '%s' '{rule}' >{KNOWN}/register\n"


def forget(handler: str) -> None:
    """No harm where the kernel has done it."""
    subprocess.run(_forgetting(handler), check=True)


def _forgetting(handler: str) -> list[str]:
    return [*ALONE, f"handler={handler}\n{REMOVE}"]
