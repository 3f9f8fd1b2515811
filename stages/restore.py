"""Restore the files that DVC needs to continue after a run that failed or was killed.

DVC writes dvc.lock in place, so a kill or a power failure can leave the file incomplete. DVC also removes a stage's
outputs before it runs the stage. This program moves an incomplete dvc.lock aside and restores the last committed
version. DVC's run cache then restores the results of stages that finished after that commit. The program also restores
missing outputs of the last successful run from DVC's cache. It keeps the outputs that a failed stage has written.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core import command
from stages.core.errors import StageError, run
from stages.core.files import write_bytes

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK, DAMAGED_LOCK = Path("dvc.lock"), Path(".work/dvc.lock.damaged")
RWLOCK = Path(".dvc/tmp/rwlock")
CONFLICT = re.compile(rb"^(<<<<<<<|=======$|>>>>>>>)", re.MULTILINE)


def repair_lock() -> None:
    """Replace an unreadable dvc.lock with the last committed version, or remove it if there is no such version.

    The unreadable file is kept as .work/dvc.lock.damaged. Raises StageError if dvc.lock has a merge conflict or is not
    a file, because a person must decide what to do in these cases.
    """
    if not LOCK.exists():
        return
    if not LOCK.is_file():
        raise StageError(
            str(LOCK), "it is not a regular file", "a file that DVC writes", f"remove {LOCK}, then run again"
        )
    content = LOCK.read_bytes()
    if CONFLICT.search(content):
        raise StageError(
            str(LOCK),
            "found git's conflict markers",
            "the lock file of one branch",
            f"git checkout --ours {LOCK}, then make repro (it restores or rebuilds the outputs of the other branch), "
            f"then git add {LOCK}",
        )
    if is_readable(content):
        return
    write_bytes(DAMAGED_LOCK, content)
    committed = committed_lock()
    if committed:
        write_bytes(LOCK, committed)
    else:
        LOCK.unlink()
    outcome = "restored from the last commit" if committed else "removed"
    print(
        f"{LOCK} was incomplete after an interruption and was {outcome} "
        f"(a copy is in {DAMAGED_LOCK}); finished stages are restored from the run cache"
    )


def refuse_concurrent_run() -> None:
    """Raise StageError if another DVC process is running in this folder.

    DVC itself would report the conflict only after it has run some stages.
    """
    import psutil

    try:
        locks = json.loads(RWLOCK.read_bytes())
        writers = [locks["write"][path] for path in locks.get("write", {})]
        readers = [reader for path in locks.get("read", {}) for reader in locks["read"][path]]
        commands = {int(holder["pid"]): str(holder["cmd"]) for holder in [*writers, *readers]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return  # the lock file is missing or corrupted; DVC reports a corrupted one
    alive = {pid: command_line for pid, command_line in commands.items() if psutil.pid_exists(pid)}
    if alive:
        problem = "; ".join(f"process {pid} is running here: {command_line}" for pid, command_line in alive.items())
        raise StageError(str(RWLOCK), problem, "one DVC process at a time in this folder", "wait for it to finish")


def is_readable(content: bytes) -> bool:
    """Check whether DVC can read dvc.lock, and whether `content`, the content of dvc.lock, ends with a newline.

    The second check is needed because a file that was cut off inside a digest can still be valid YAML.
    """
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.strictyaml import load

    try:
        load(str(LOCK), COMPILED_LOCKFILE_SCHEMA)
    except DvcException:
        return False
    return content.endswith(b"\n")


def committed_lock() -> bytes | None:
    """Return the content of the last committed dvc.lock; None if no version is committed, or git is not installed."""
    try:
        done = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def missing_outputs(repo: Repo) -> list[str]:
    """Return the paths of outputs that dvc.lock lists and the cache contains, but that are missing in the work tree."""
    return [
        os.path.relpath(out.fs_path)
        for out in repo.index.outs
        if out.use_cache and out.hash_info and not out.exists and not out.changed_cache()
    ]


def restore_outputs() -> None:
    """Restore the missing outputs of the last successful run from DVC's cache. Raises StageError."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    logging.getLogger("dvc").setLevel(logging.CRITICAL)  # DVC's warnings suggest `dvc checkout`, which is done below
    try:
        with Repo() as repo:
            missing = missing_outputs(repo)
            if missing:
                repo.checkout(targets=missing, force=True, allow_missing=True)
    except (DvcException, SCMError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = "fix this, then run: make repro"
        if isinstance(error, SCMError):
            remedy = "run git init, or to work without git: dvc config core.no_scm true; then run: make repro"
        raise StageError("earlier outputs were not restored", first, remedy=remedy) from None
    if missing:
        print(f"restored from the last successful run: {', '.join(sorted(missing))}")


def main() -> None:
    """Restore dvc.lock and missing outputs; with --lock, only repair dvc.lock and check that DVC is not running."""
    parser = command.parser("restore", __doc__)
    parser.add_argument(
        "--lock", action="store_true", help="before a run: only repair dvc.lock, and check that no other run is active"
    )
    only_lock = parser.parse_args().lock
    if only_lock:
        refuse_concurrent_run()
    repair_lock()
    if not only_lock:
        restore_outputs()


if __name__ == "__main__":
    run(main)
