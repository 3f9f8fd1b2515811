"""From a table to arrays: rows leave the engine once, sorted, and go to the split of their group.

Nothing here holds a whole table. Of a series only group, time and class of each row are kept in memory
(14 bytes a row), which is what windows are cut from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.core.dataset import SPLITS, ArrayFile, SampleSpec
from stages.core.errors import ContractError
from stages.core.progress import watched
from stages.prepare.leakage import Runs, Samples
from stages.prepare.splits import assign
from stages.prepare.windows import find_segments, window_labels, window_starts

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.params import Params
    from stages.tables.engine import Engine

MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Splits:
    """Which split each group is in, or each row by its place in the sorted table."""

    of_group: dict[str, int]
    of_row: np.ndarray | None
    group: str
    rows: int

    def rows_of(self, name: str, engine: Engine, table: ir.Table) -> ir.Table:
        """The rows of one split, where whole groups are in one."""
        import pandas as pd

        wanted = sorted(group for group, split in self.of_group.items() if SPLITS[split] == name)
        return table.semi_join(engine.frame(pd.DataFrame({self.group: wanted})), self.group)


def sort_order(table: ir.Table, params: Params) -> list[str]:
    """Columns that order a table: group, source, time; then all others, so that no two orders are possible."""
    data = params.data
    first = [data.group, "source"] + ([data.time] if data.time is not None else [])
    if data.time is not None:
        return first  # unique, by the contract
    return first + [name for name in table.columns if name not in [*first, *data.columns]] + data.columns


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
    of_group = _by_group(table.filter(~is_test), shares, params)
    return Splits(of_group | dict.fromkeys(test, SPLITS.index("test")), None, data.group, rows)


def _groups(table: ir.Table, group: str) -> list[str]:
    return table.select(group).distinct().to_pyarrow()[group].to_pylist()


def _by_group(table: ir.Table, shares: dict[str, float], params: Params) -> dict[str, int]:
    data = params.data
    counted = table.group_by([data.group, data.label]).aggregate(n=table.count()).to_pyarrow()
    coded = counted[data.group].combine_chunks().dictionary_encode()
    groups, rows = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    counts = np.zeros((len(groups), len(data.classes)), dtype=np.int64)
    counts[rows, _class_index(counted[data.label].combine_chunks(), params)] = counted["n"].to_numpy()
    return {group: SPLITS.index(name) for group, name in assign(groups, counts, shares, params.seed).items()}


def _by_row(engine: Engine, table: ir.Table, shares: dict[str, float], params: Params) -> np.ndarray:
    """Split of each row of the sorted table, int8 [R]: every row its own group, named by its place."""
    ordered = table.order_by(sort_order(table, params)).select(params.data.label, "is_test")
    schema = pa.schema([(params.data.label, pa.string()), ("is_test", pa.bool_())])
    rows = pa.Table.from_batches(engine.stream(ordered, schema), schema).combine_chunks()
    labels = _class_index(rows[params.data.label].combine_chunks(), params)
    split = np.where(rows["is_test"].to_numpy(), SPLITS.index("test"), -1).astype(np.int8)
    rest = np.flatnonzero(split < 0)
    one_each = np.eye(len(params.data.classes), dtype=np.int64)[labels[rest]]
    chosen = assign([str(i) for i in rest], one_each, shares, params.seed)
    split[rest] = [SPLITS.index(chosen[str(i)]) for i in rest]
    return split


def _class_index(labels: pa.Array, params: Params) -> np.ndarray:
    """int16 index into data.classes."""
    found = pc.index_in(labels, value_set=pa.array(list(params.data.classes), pa.string()))
    if found.null_count:
        unknown = pc.unique(labels.filter(pc.is_null(found))).to_pylist()
        raise ContractError(
            f"column {params.data.label}", f"found the label(s) {unknown}", "keys of data.classes", "run validate again"
        )
    return found.to_numpy().astype(np.int16)


def _sorted_batches(
    engine: Engine, table: ir.Table, columns: dict[str, pa.DataType], splits: Splits, params: Params, names: list[str]
) -> Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
    """Batches in order with, per row, the group's number and the split. `names` is filled: number -> group."""
    numbers: dict[str, int] = {}
    schema = pa.schema(columns)
    at = 0
    ordered = table.order_by(sort_order(table, params)).select(*columns)
    for batch in watched(engine.stream(ordered, schema), "prepare", splits.rows):
        coded = batch.column(params.data.group).dictionary_encode()
        found = coded.dictionary.to_pylist()
        for name in found:
            if name not in numbers:
                numbers[name] = len(names)
                names.append(name)
        indices = coded.indices.to_numpy()
        group = np.array([numbers[name] for name in found], dtype=np.int32)[indices]
        if splits.of_row is not None:
            split = splits.of_row[at : at + batch.num_rows]
        else:
            split = np.array([splits.of_group[name] for name in found], dtype=np.int8)[indices]
        at += batch.num_rows
        yield batch, group, split


def write_samples(
    engine: Engine, table: ir.Table, splits: Splits, prepared: Path, spec: SampleSpec, params: Params
) -> None:
    """Images or clips: x.npy, y.npy, group.npy of each split. Raises ContractError where two splits share a sample."""
    data = params.data
    (values,) = data.columns
    columns = {data.group: pa.string(), data.label: pa.string(), values: pa.list_(pa.float32())}
    shape = tuple(spec.shape)
    labels: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int64)] for name in SPLITS}
    groups: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int32)] for name in SPLITS}
    names: list[str] = []
    samples = Samples()
    with ExitStack() as stack:
        files = {}
        for name in SPLITS:
            (prepared / name).mkdir()
            files[name] = stack.enter_context(ArrayFile(prepared / name / "x.npy", shape, np.float32))
        for batch, group, split in _sorted_batches(engine, table, columns, splits, params, names):
            x = fixed_length(batch.column(values), int(np.prod(shape))).reshape(-1, *shape)
            y = _class_index(batch.column(data.label), params)
            for i, name in enumerate(SPLITS):
                files[name].append(x[split == i])
                samples.add(name, x[split == i])
                labels[name].append(y[split == i])
                groups[name].append(group[split == i])
    numbers = {name: np.concatenate(parts) for name, parts in groups.items()}
    samples.refuse_shared(prepared, numbers, names)
    for name in SPLITS:
        np.save(prepared / name / "y.npy", np.concatenate(labels[name]).astype(np.int64))
        _write_groups(prepared / name / "group.npy", numbers[name], names)


def fixed_length(lists: pa.ListArray, length: int) -> np.ndarray:
    """Lists as float32 [N, length]: cut, or padded with zeros, at the end."""
    offsets = lists.offsets.to_numpy()
    values = lists.values.to_numpy(zero_copy_only=False)
    if np.all(np.diff(offsets) == length):
        return values[offsets[0] : offsets[-1]].reshape(-1, length)
    fixed = np.zeros((len(lists), length), dtype=np.float32)
    for i in range(len(lists)):
        row = values[offsets[i] : min(offsets[i + 1], offsets[i] + length)]
        fixed[i, : len(row)] = row
    return fixed


def write_series(engine: Engine, table: ir.Table, splits: Splits, prepared: Path, params: Params) -> float:
    """Rows of each split once (x.npy) and where windows start; the sampling rate in Hz of the training rows.

    Raises ContractError where two splits share a run of rows.
    """
    data = params.data
    assert data.time is not None
    columns = {data.group: pa.string(), "source": pa.string(), data.time: pa.timestamp("us"), data.label: pa.string()}
    columns |= dict.fromkeys(data.columns, pa.float64())
    kept: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in SPLITS}
    names: list[str] = []
    sources: dict[str, int] = {}
    assert params.prepare.window is not None
    runs = Runs(len(data.columns), params.prepare.window.length)
    with ExitStack() as stack:
        files = {}
        for name in SPLITS:
            (prepared / name).mkdir()
            path = prepared / name / "x.npy"
            files[name] = stack.enter_context(ArrayFile(path, (len(data.columns),), np.float32))
        for batch, group, split in _sorted_batches(engine, table, columns, splits, params, names):
            x = _rows(batch, data.columns)
            coded = batch.column("source").dictionary_encode()
            numbers = [sources.setdefault(name, len(sources)) for name in coded.dictionary.to_pylist()]
            source = np.array(numbers, dtype=np.int16)[coded.indices.to_numpy()]
            time = batch.column(data.time).cast(pa.int64()).to_numpy()
            label = _class_index(batch.column(data.label), params)
            runs.add(group, source, split, time, x)
            for i, name in enumerate(SPLITS):
                mine = split == i
                files[name].append(x[mine])
                kept[name].append((group[mine], source[mine], time[mine], label[mine]))
    runs.refuse_shared(names)
    rate = 0.0
    longest = 0
    total = 0
    for name in SPLITS:
        found = _write_windows(prepared / name, kept.pop(name), names, params)
        longest, total = max(longest, found.longest), total + found.windows
        rate = found.rate_hz if name == "train" else rate
    if total == 0:
        raise ContractError(
            "data/validated",
            f"too few rows for a window: the longest run of one group without a gap has {longest} rows",
            f"at least {params.prepare.window.length} (prepare.window.length)",
            "collect longer runs, shorten the window, or allow longer gaps (prepare.window.max_gap_s)",
        )
    return rate


def _rows(batch: pa.RecordBatch, columns: list[str]) -> np.ndarray:
    """float32 [rows, channels]. Raises ContractError where a value is too large for float32."""
    x = np.stack([batch.column(name).to_numpy(zero_copy_only=False) for name in columns], axis=1)
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32)
    for index in np.flatnonzero(~np.isfinite(narrow).all(axis=0)):
        worst = x[~np.isfinite(narrow[:, index]), index][0]
        raise ContractError(
            f"column {columns[index]}",
            f"found {worst:g}",
            "finite values that float32 can hold",
            "give the column bounds (validate.columns), or scale it to another unit",
        )
    return narrow


@dataclass(frozen=True)
class Cut:
    windows: int
    longest: int
    rate_hz: float


def _write_windows(folder: Path, parts: list[tuple[np.ndarray, ...]], names: list[str], params: Params) -> Cut:
    window = params.prepare.window
    assert window is not None
    if not parts:  # a table without a row
        parts = [tuple(np.zeros(0, dtype) for dtype in (np.int32, np.int16, np.int64, np.int16))]
    group, source, time, label = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    run = group.astype(np.int64) * (int(source.max(initial=0)) + 1) + source
    borders = find_segments(run, time, round(window.max_gap_s * MICROSECONDS))
    starts = window_starts(borders, window.length, window.stride)
    y = window_labels(label, starts, window.length, len(params.data.classes), window.label)
    np.save(folder / "starts.npy", starts)
    np.save(folder / "y.npy", y)
    _write_groups(folder / "group.npy", group[starts], names)
    steps = np.diff(time)[np.diff(run) == 0]
    rate = float(f"{MICROSECONDS / np.median(steps):.7g}") if len(steps) else 0.0
    return Cut(len(starts), int(np.diff(borders).max(initial=0)), rate)


def _write_groups(path: Path, numbers: np.ndarray, names: list[str]) -> None:
    """Group names as fixed-width unicode, block by block: they can outweigh the data."""
    used = np.unique(numbers)
    width = max((len(names[i]) for i in used), default=1) or 1
    every = np.array(names or [""], dtype=f"<U{width}")
    with ArrayFile(path, (), every.dtype) as file:
        for start in range(0, len(numbers), 1 << 16):
            file.append(every[numbers[start : start + (1 << 16)]])
