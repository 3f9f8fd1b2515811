"""What targets left that params.yaml does not name any more."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from stages.params.common import TargetName

FOLDERS = (Path("models/exported"), Path("reports/evaluate"))


def remove_leftovers(targets: Iterable[TargetName], root: Path = Path()) -> list[str]:
    """Remove the folders of targets that are not built; returns their paths. DVC's cache keeps what they held.

    DVC forgets the stages of a removed target, not their outputs. The stages gate and package depend on the folders
    as a whole (DVC's templates know no list of dependencies), so that a clone, which does not get what no stage
    names, would find them changed and run again.
    """
    unbuilt = sorted(set(get_args(TargetName)) - set(targets))
    left = [folder / name for folder in FOLDERS for name in unbuilt if (root / folder / name).is_dir()]
    for path in left:
        shutil.rmtree(root / path)
    return [str(path) for path in left]
