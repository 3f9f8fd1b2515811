"""Which samples are for training, validation and test: whole groups, so that a score is for unseen groups."""

from __future__ import annotations

import hashlib

import numpy as np

from stages.core.dataset import SPLITS
from stages.core.errors import ContractError


def assign(groups: list[str], counts: np.ndarray, shares: dict[str, float], seed: int) -> dict[str, str]:
    """Give every group to a split. Deterministic: the order of `groups` does not matter.

    groups: G names; counts: int [G, C], rows of each class in each group; shares: split -> wanted share, of sum 1.

    Greedy, large groups first (as in StratifiedGroupKFold of scikit-learn): each goes where it lessens
    sum over classes of ((rows of the split - wanted rows of the split) / rows of the class)^2 the most. Groups
    within a factor of two in size come in an order that a hash of seed and name decides.
    """
    names = list(shares)
    totals = np.maximum(counts.sum(axis=0), 1).astype(np.float64)
    relative = counts / totals
    missing = np.outer([shares[name] for name in names], (counts.sum(axis=0) > 0).astype(np.float64))
    size = np.log2(np.maximum(counts.sum(axis=1), 1)).astype(np.int64)
    ranks = [hashlib.sha256(f"{seed}:{group}".encode()).digest() for group in groups]
    split_of: dict[str, str] = {}
    for i in sorted(range(len(groups)), key=lambda i: (-size[i], ranks[i])):
        # |missing - g|^2 - |missing|^2 = |g|^2 - 2 missing.g: the split that lacks most of what the group has
        best = int(np.argmax(missing @ relative[i]))
        missing[best] -= relative[i]
        split_of[groups[i]] = names[best]
    return split_of


def refuse_poor_splits(samples: dict[str, dict[str, int]], groups: dict[str, int], classes: list[str]) -> None:
    """Raise ContractError where a split is empty or training lacks a class.

    samples: per split, samples of each class; groups: per split, how many groups.
    """
    for split in SPLITS:
        if sum(samples[split].values()) == 0:
            raise ContractError(
                f"split {split}",
                f"it would be empty; there are {sum(groups.values())} group(s) with samples: "
                + ", ".join(f"{name} {groups[name]}" for name in SPLITS),
                "at least one group with samples in each split",
                "collect more groups, or change prepare.split (shares, column) or prepare.window (length)",
            )
    absent = [name for name in classes if samples["train"].get(name, 0) == 0]
    if absent:
        elsewhere = {name: sum(samples[split].get(name, 0) for split in SPLITS) for name in absent}
        raise ContractError(
            "split train",
            "no sample of class " + ", ".join(f"{name!r} ({n} in other splits)" for name, n in elsewhere.items()),
            "samples of every class of data.classes",
            "collect more groups that have it, change the shares in prepare.split, or take the class out",
        )
