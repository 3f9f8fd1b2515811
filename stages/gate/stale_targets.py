"""Remove the outputs of targets that params.yaml no longer lists."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from stages.params.common import TargetName

FOLDERS = (Path("models/exported"), Path("reports/evaluate"))


def remove_stale_targets(targets: Iterable[TargetName], root: Path = Path()) -> list[str]:
    """Remove the output folders of targets that are not in `targets`, and return the removed paths.

    DVC's cache keeps the content of the folders. If a target is removed from params.yaml, DVC forgets the target's
    stages but does not remove their outputs. The `gate` and `package` stages depend on the parent folders, because
    DVC's templates cannot list dependencies. If the outputs stayed, a clone of the repository would not get them,
    because no stage declares them. In the clone, DVC would then see the parent folders as changed, and would run both
    stages again.
    """
    unbuilt = sorted(set(get_args(TargetName)) - set(targets))
    stale = [folder / name for folder in FOLDERS for name in unbuilt if (root / folder / name).is_dir()]
    for path in stale:
        shutil.rmtree(root / path)
    return [str(path) for path in stale]
