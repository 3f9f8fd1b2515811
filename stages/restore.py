"""After a run that failed or was killed: what DVC needs to go on.

DVC writes dvc.lock in place, so that a kill or a power cut at that moment leaves it cut short, and removes a
stage's outputs before it runs the stage. A damaged dvc.lock is replaced by the last commit's; the stages that
finished since then come back from DVC's run cache. Missing outputs of the last good run come back from DVC's
cache; what the failed stage left in place (a gate's report, say) stays.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from stages.files import write_text

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK = Path("dvc.lock")


def mend_lock() -> None:
    """Replace a dvc.lock that DVC cannot read by the last commit's, or remove it where none was committed."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.strictyaml import YAMLSyntaxError, YAMLValidationError, load

    if not LOCK.exists():
        return
    try:
        load(str(LOCK), COMPILED_LOCKFILE_SCHEMA)
        whole = LOCK.read_bytes().endswith(b"\n")  # cut inside a digest it may still be valid YAML
    except (YAMLSyntaxError, YAMLValidationError, UnicodeDecodeError):
        whole = False
    if not whole:
        committed = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], capture_output=True, text=True, check=False)
        if committed.returncode == 0:
            write_text(LOCK, committed.stdout)
        else:
            LOCK.unlink()
        print(f"{LOCK} was cut short by an interruption; finished stages come back from the run cache")


def missing_outputs(repo: Repo) -> list[str]:
    """Paths of outputs that dvc.lock knows by digest, that the work tree lacks and the cache holds."""
    return [
        os.path.relpath(out.fs_path)
        for out in repo.index.outs
        if out.use_cache and out.hash_info and not out.exists and not out.changed_cache()
    ]


def restore_outputs() -> None:
    """Bring the missing outputs of the last good run back from DVC's cache."""
    from dvc.repo import Repo

    with Repo() as repo:
        lost = missing_outputs(repo)
        if lost:
            repo.checkout(targets=lost, force=True, allow_missing=True)
            print(f"restored from the last good run: {', '.join(sorted(lost))}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stages.restore", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lock", action="store_true", help="mend dvc.lock only")
    only_lock = parser.parse_args().lock
    mend_lock()
    if not only_lock:
        restore_outputs()


if __name__ == "__main__":
    main()
