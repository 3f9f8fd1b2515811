"""After a run that failed: bring the missing outputs of the last good run back from DVC's cache.

DVC removes a stage's outputs before it runs the stage. What the failed stage left in place (a gate's
report, say) stays; only what is gone is restored.
"""

from __future__ import annotations

import os

from dvc.repo import Repo


def missing_outputs(repo: Repo) -> list[str]:
    """Paths of outputs that dvc.lock knows by digest, that the work tree lacks and the cache holds."""
    return [
        os.path.relpath(out.fs_path)
        for out in repo.index.outs
        if out.use_cache and out.hash_info and not out.exists and not out.changed_cache()
    ]


def main() -> None:
    with Repo() as repo:
        lost = missing_outputs(repo)
        if lost:
            repo.checkout(targets=lost, force=True, allow_missing=True)
            print(f"restored from the last good run: {', '.join(sorted(lost))}")


if __name__ == "__main__":
    main()
