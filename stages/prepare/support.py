"""Say which classes have no sample in the validation split or in the test split, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.core.dataset import SPLITS, Split


def describe_absent_classes(prepared: Path, classes: list[str], group: str) -> list[str]:
    """Return a sentence with a remedy for each class that has no sample in a split; empty if every class has one.

    Args:
        prepared: Folder with the prepared samples.
        classes: Names of all classes.
        group: Name of the column that holds the group.
    """
    splits = {name: Split.open(prepared, name) for name in SPLITS}
    sentences = []
    for k, name in enumerate(classes):
        counts = {split: int(np.sum(own.y == k)) for split, own in splits.items()}
        absent = [split for split, count in counts.items() if not count]
        if not absent:
            continue
        groups = sorted({str(one) for own in splits.values() for one in np.unique(own.group[own.y == k])})
        shown = ", ".join(groups[:3]) + (", ..." if len(groups) > 3 else "")
        sentences.append(
            f"class {name!r} has no sample in {' and '.join(absent)} "
            f"({', '.join(f'{count} in {split}' for split, count in counts.items())}); its samples are from "
            f"{len(groups)} group(s) of {group!r} ({shown}). The model's quality for this class is not measured there, "
            "which the gate accepts only with gate.support: null. Remedy: collect the class in more groups, at least "
            "one for each split, or change prepare.split"
        )
    return sentences
