"""Divide samples into training, validation and test splits.

All samples of a group are in the same split, unless `prepare.split.validation_by` is `row`. With whole groups, the
metrics show how well the model works on groups that it was not trained on.
"""

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
    """The assignment of each group, or of each row, to a split.

    split_of_group: For each group's name, the index of its split in SPLITS.
    split_of_row: For each row of the sorted table, the index of its split in SPLITS, int8 [R]; None if every group is
        in one split only.
    group: Name of the column that holds the group.
    rows: Number of rows of the table.
    """

    split_of_group: dict[str, int]
    split_of_row: np.ndarray | None
    group: str
    rows: int

    def rows_in(self, name: str, engine: Engine, table: ir.Table) -> ir.Table:
        """Return the rows of the split `name`. Do not call this method if single rows were assigned to splits.

        Args:
            name: Name of the split.
            engine: The table engine that evaluates expressions.
            table: The rows of all splits.
        """
        import pandas as pd

        groups = sorted(group for group, split in self.split_of_group.items() if SPLITS[split] == name)
        return table.semi_join(engine.from_pandas(pd.DataFrame({self.group: groups})), self.group)


def split_rows(engine: Engine, table: ir.Table, rows: int, params: Params) -> Splits:
    """Assign each group or each row of a table to a split, as the parameters `prepare.split` define.

    Args:
        engine: The table engine that evaluates expressions.
        table: The rows to assign.
        rows: Number of rows of the table.
        params: All parameters of the pipeline.

    Raises:
        ContractError: The column that marks the test samples is missing, or divides groups that must stay whole.
    """
    data, split = params.data, params.prepare.split
    if split.method == "group":
        assert split.test is not None
        shares = {"train": 1 - split.validation - split.test, "validation": split.validation, "test": split.test}
        return Splits(_by_group(table, shares, params), None, data.group, rows)
    assert split.column is not None and split.test_values is not None
    if split.column not in table.columns:
        raise ContractError(
            f"column {split.column}",
            f"it is missing; the columns are {', '.join(table.columns)}",
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
            f"{len(both)} group(s), such as {both[0]!r}, are partly inside and partly outside the test split",
            "every group either entirely inside or entirely outside the test split",
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
    """Return the split number of each row of the sorted table, int8 [R].

    Each row is treated as a separate group, and the row's index is the name of this group.
    """
    ordered = table.order_by(sort_order(table, params)).select(params.data.label, "is_test")
    schema = pa.schema([(params.data.label, pa.string()), ("is_test", pa.bool_())])
    rows = pa.Table.from_batches(engine.stream(ordered, schema), schema).combine_chunks()
    labels = class_index(rows[params.data.label].combine_chunks(), params)
    split = np.where(rows["is_test"].to_numpy(), SPLITS.index("test"), -1).astype(np.int8)
    remaining = np.flatnonzero(split < 0)
    one_each = np.eye(len(params.data.classes), dtype=np.int64)[labels[remaining]]
    chosen = assign_groups([str(i) for i in remaining], one_each, shares, params.seed)
    split[remaining] = [SPLITS.index(chosen[str(i)]) for i in remaining]
    return split


def assign_groups(groups: list[str], counts: np.ndarray, shares: dict[str, float], seed: int) -> dict[str, str]:
    """Assign every group to a split. The result does not depend on the order of `groups`.

    The method is greedy and begins with the largest groups, like StratifiedGroupKFold of scikit-learn. Each group is
    assigned to the split for which the following sum over all classes decreases most: ((rows of the class in the split
    - target number of these rows) / all rows of the class)^2. Groups of similar size (within a factor of two) are
    ordered by a hash of the seed and the group's name.

    Args:
        groups: Names of the G groups.
        counts: Number of rows of each class in each group, int [G, C].
        shares: Target fraction of rows in each split; the fractions add up to 1.
        seed: Seed of the hash that orders groups of similar size.

    Returns:
        The name of each group's split, by the group's name.
    """
    names = list(shares)
    totals = np.maximum(counts.sum(axis=0), 1).astype(np.float64)
    relative = counts / totals
    missing = np.outer([shares[name] for name in names], (counts.sum(axis=0) > 0).astype(np.float64))
    size = np.log2(np.maximum(counts.sum(axis=1), 1)).astype(np.int64)
    ranks = [hashlib.sha256(f"{seed}:{group}".encode()).digest() for group in groups]
    split_of: dict[str, str] = {}
    for i in sorted(range(len(groups)), key=lambda i: (-size[i], ranks[i])):
        # |missing - g|^2 - |missing|^2 = |g|^2 - 2 missing.g, which is smallest for the largest product missing.g
        best = int(np.argmax(missing @ relative[i]))
        missing[best] -= relative[i]
        split_of[groups[i]] = names[best]
    return split_of


def refuse_poor_splits(samples: dict[str, dict[str, int]], groups: dict[str, int], classes: list[str]) -> None:
    """Raise ContractError if a split is empty, or if the training split has no sample of a class.

    Args:
        samples: For each split, the number of samples of each class.
        groups: For each split, the number of groups.
        classes: Names of all classes.
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
            "collect more groups that have this class, change the shares in prepare.split, or remove the class",
        )
