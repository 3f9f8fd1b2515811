"""Which samples are for training, validation and test: whole groups, so that a score is for unseen groups."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from stages.core.dataset import SPLITS
from stages.core.errors import ContractError
from stages.prepare.rows import class_index, sort_order

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.params import Params
    from stages.tables.engine import Engine


@dataclass(frozen=True)
class Splits:
    """Which split each group is in, or each row by its place in the sorted table."""

    split_of_group: dict[str, int]
    split_of_row: np.ndarray | None
    group: str
    rows: int

    def rows_in(self, name: str, engine: Engine, table: ir.Table) -> ir.Table:
        """The rows of one split, where whole groups are in one."""
        import pandas as pd

        wanted = sorted(group for group, split in self.split_of_group.items() if SPLITS[split] == name)
        return table.semi_join(engine.from_pandas(pd.DataFrame({self.group: wanted})), self.group)


def split_rows(engine: Engine, table: ir.Table, rows: int, params: Params) -> Splits:
    """Decide the splits of a table of so many rows by `prepare.split`. Raises ContractError."""
    data, split = params.data, params.prepare.split
    if split.method == "group":
        assert split.test is not None
        shares = {"train": 1 - split.validation - split.test, "validation": split.validation, "test": split.test}
        return Splits(_by_group(table, shares, params), None, data.group, rows)
    assert split.column is not None and split.test_values is not None
    if split.column not in table.columns:
        raise ContractError(
            f"column {split.column}",
            f"it is missing; there are {', '.join(table.columns)}",
            "the column of the official split (prepare.split.column)",
            "describe it in validate.columns, or split by group",
        )
    shares = {"train": 1 - split.validation, "validation": split.validation}
    is_test = table[split.column].cast("string").isin(split.test_values)
    if split.validation_by == "row":
        return Splits({}, _by_row(engine, table.mutate(is_test=is_test), shares, params), data.group, rows)
    test = set(_groups(table.filter(is_test), data.group))
    both = sorted(test & set(_groups(table.filter(~is_test), data.group)))
    if both:
        raise ContractError(
            f"column {split.column}",
            f"{len(both)} group(s), {both[0]!r} for one, are inside and outside of the test split",
            "whole groups on either side",
            "set prepare.split.validation_by: row if the official split divides groups",
        )
    split_of_group = _by_group(table.filter(~is_test), shares, params)
    return Splits(split_of_group | dict.fromkeys(test, SPLITS.index("test")), None, data.group, rows)


def _groups(table: ir.Table, group: str) -> list[str]:
    names: list[str] = table.select(group).distinct().to_pyarrow()[group].to_pylist()
    return names


def _by_group(table: ir.Table, shares: dict[str, float], params: Params) -> dict[str, int]:
    data = params.data
    counted = table.group_by([data.group, data.label]).aggregate(n=table.count()).to_pyarrow()
    coded = counted[data.group].combine_chunks().dictionary_encode()
    groups, rows = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    counts = np.zeros((len(groups), len(data.classes)), dtype=np.int64)
    counts[rows, class_index(counted[data.label].combine_chunks(), params)] = counted["n"].to_numpy()
    return {group: SPLITS.index(name) for group, name in assign_groups(groups, counts, shares, params.seed).items()}


def _by_row(engine: Engine, table: ir.Table, shares: dict[str, float], params: Params) -> np.ndarray:
    """Split of each row of the sorted table, int8 [R]: every row its own group, named by its place."""
    ordered = table.order_by(sort_order(table, params)).select(params.data.label, "is_test")
    schema = pa.schema([(params.data.label, pa.string()), ("is_test", pa.bool_())])
    rows = pa.Table.from_batches(engine.stream(ordered, schema), schema).combine_chunks()
    labels = class_index(rows[params.data.label].combine_chunks(), params)
    split = np.where(rows["is_test"].to_numpy(), SPLITS.index("test"), -1).astype(np.int8)
    rest = np.flatnonzero(split < 0)
    one_each = np.eye(len(params.data.classes), dtype=np.int64)[labels[rest]]
    chosen = assign_groups([str(i) for i in rest], one_each, shares, params.seed)
    split[rest] = [SPLITS.index(chosen[str(i)]) for i in rest]
    return split


def assign_groups(groups: list[str], counts: np.ndarray, shares: dict[str, float], seed: int) -> dict[str, str]:
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
