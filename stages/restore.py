"""After a run that failed or was killed: what DVC needs to go on.

DVC writes dvc.lock in place, so that a kill or a power cut at that moment leaves it cut short, and removes a
stage's outputs before it runs the stage. A damaged dvc.lock is put aside and replaced by the last commit's; the
stages that finished since then come back from DVC's run cache. Missing outputs of the last good run come back from
DVC's cache; what the failed stage left in place (a gate's report, say) stays.
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
    """Replace a dvc.lock that DVC cannot read by the last commit's, or remove it where none was committed.

    What was there is kept in .work/dvc.lock.damaged. Raises StageError where only a person can tell what is meant:
    a merge conflict, or something that is no file.
    """
    if not LOCK.exists():
        return
    if not LOCK.is_file():
        raise StageError(str(LOCK), "found something that is no file", "DVC's lock file", f"remove {LOCK}, run again")
    content = LOCK.read_bytes()
    if CONFLICT.search(content):
        raise StageError(
            str(LOCK),
            "found git's conflict markers",
            "one side's lock file: what the other side built is restored or built again",
            f"git checkout --ours {LOCK}, make repro, git add {LOCK}",
        )
    if is_readable(content):
        return
    write_bytes(DAMAGED_LOCK, content)
    committed = committed_lock()
    if committed:
        write_bytes(LOCK, committed)
    else:
        LOCK.unlink()
    print(
        f"{LOCK} was cut short by an interruption, and is now {'as last committed' if committed else 'removed'} "
        f"(it lies in {DAMAGED_LOCK}); finished stages come back from the run cache"
    )


def refuse_concurrent_run() -> None:
    """Raise StageError where another DVC works in this tree: it would be in the way only after some stages have run."""
    import psutil

    try:
        held = json.loads(RWLOCK.read_bytes())
        writers = [held["write"][path] for path in held.get("write", {})]
        readers = [reader for path in held.get("read", {}) for reader in held["read"][path]]
        commands = {int(holder["pid"]): str(holder["cmd"]) for holder in [*writers, *readers]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return  # none, or damaged: DVC says so itself
    alive = {pid: what for pid, what in commands.items() if psutil.pid_exists(pid)}
    if alive:
        found = "; ".join(f"process {pid} works here: {what}" for pid, what in alive.items())
        raise StageError(str(RWLOCK), found, "one run at a time", "wait until it has ended")


def is_readable(content: bytes) -> bool:
    """Whether DVC can read the lock file, and it is whole: cut inside a digest it may still be valid YAML."""
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.strictyaml import load

    try:
        load(str(LOCK), COMPILED_LOCKFILE_SCHEMA)
    except DvcException:
        return False
    return content.endswith(b"\n")


def committed_lock() -> bytes | None:
    """dvc.lock as last committed; None where it never was, and where there is no git."""
    try:
        done = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def missing_outputs(repo: Repo) -> list[str]:
    """Paths of outputs that dvc.lock knows by digest, that the work tree lacks and the cache holds."""
    return [
        os.path.relpath(out.fs_path)
        for out in repo.index.outs
        if out.use_cache and out.hash_info and not out.exists and not out.changed_cache()
    ]


def restore_outputs() -> None:
    """Bring the missing outputs of the last good run back from DVC's cache. Raises StageError."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    logging.getLogger("dvc").setLevel(logging.CRITICAL)  # its warnings are of `dvc checkout`, which nobody called
    try:
        with Repo() as repo:
            lost = missing_outputs(repo)
            if lost:
                repo.checkout(targets=lost, force=True, allow_missing=True)
    except (DvcException, SCMError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = "mend that, then: make repro"
        if isinstance(error, SCMError):
            remedy = "git init, or to work without git: dvc config core.no_scm true; then: make repro"
        raise StageError("earlier outputs were not restored", first, remedy=remedy) from None
    if lost:
        print(f"restored from the last good run: {', '.join(sorted(lost))}")


def main() -> None:
    parser = command.parser("restore", __doc__)
    parser.add_argument(
        "--lock", action="store_true", help="before a run: mend dvc.lock only, and see that no other run is under way"
    )
    only_lock = parser.parse_args().lock
    if only_lock:
        refuse_concurrent_run()
    repair_lock()
    if not only_lock:
        restore_outputs()


if __name__ == "__main__":
    run(main)
