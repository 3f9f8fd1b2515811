"""Write the rows of a table to the array files of the training, validation and test splits.

The table engine delivers the rows once, in sorted order. No function holds a whole table in memory. For a series, only
the group, source, time and class of each row are kept in memory (16 bytes per row), because they determine the windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from stages.core.dataset import SPLITS, ArrayFile, SampleSpec
from stages.core.errors import ContractError
from stages.core.progress import report_rows
from stages.prepare.leakage import RunFingerprints, SampleFingerprints
from stages.prepare.rows import class_index, sort_order
from stages.prepare.splits import Splits
from stages.prepare.windows import find_segments, window_labels, window_starts

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from stages.params import Params
    from stages.tables.engine import Engine

MICROSECONDS = 1_000_000


def _sorted_batches(
    engine: Engine, table: ir.Table, columns: dict[str, pa.DataType], splits: Splits, params: Params, names: list[str]
) -> Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
    """Yield the table's rows in sorted batches, with the group number and the split number of each row.

    The number of a group is its index in `names`. The names of new groups are appended to `names`.
    """
    numbers: dict[str, int] = {}
    schema = pa.schema(columns)
    at = 0
    ordered = table.order_by(sort_order(table, params)).select(*columns)
    for batch in report_rows(engine.stream(ordered, schema), "prepare", splits.rows):
        coded = batch.column(params.data.group).dictionary_encode()
        groups = coded.dictionary.to_pylist()
        for name in groups:
            if name not in numbers:
                numbers[name] = len(names)
                names.append(name)
        indices = coded.indices.to_numpy()
        group = np.array([numbers[name] for name in groups], dtype=np.int32)[indices]
        if splits.split_of_row is not None:
            split = splits.split_of_row[at : at + batch.num_rows]
        else:
            split = np.array([splits.split_of_group[name] for name in groups], dtype=np.int8)[indices]
        at += batch.num_rows
        yield batch, group, split


def write_samples(
    engine: Engine, table: ir.Table, splits: Splits, prepared: Path, spec: SampleSpec, params: Params
) -> None:
    """Write the images or audio clips of each split to x.npy, their classes to y.npy and their groups to group.npy.

    Args:
        engine: The table engine that evaluates expressions.
        table: The validated rows; each row is one sample.
        splits: The assignment of groups or rows to splits.
        prepared: Folder of the prepared data.
        spec: Description of a sample, with its shape.
        params: All parameters of the pipeline.

    Raises:
        ContractError: Two splits contain the same sample.
    """
    data = params.data
    (values,) = data.columns
    columns = {data.group: pa.string(), data.label: pa.string(), values: pa.list_(pa.float32())}
    shape = tuple(spec.shape)
    labels: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int64)] for name in SPLITS}
    groups: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int32)] for name in SPLITS}
    names: list[str] = []
    samples = SampleFingerprints()
    with ExitStack() as stack:
        files = {}
        for name in SPLITS:
            (prepared / name).mkdir()
            files[name] = stack.enter_context(ArrayFile(prepared / name / "x.npy", shape, np.float32))
        for batch, group, split in _sorted_batches(engine, table, columns, splits, params, names):
            x = fixed_length(batch.column(values), int(np.prod(shape))).reshape(-1, *shape)
            y = class_index(batch.column(data.label), params)
            for i, name in enumerate(SPLITS):
                files[name].append(x[split == i])
                samples.add(name, x[split == i])
                labels[name].append(y[split == i])
                groups[name].append(group[split == i])
    numbers = {name: np.concatenate(parts) for name, parts in groups.items()}
    samples.refuse_duplicates(prepared, numbers, names)
    for name in SPLITS:
        np.save(prepared / name / "y.npy", np.concatenate(labels[name]).astype(np.int64))
        _write_groups(prepared / name / "group.npy", numbers[name], names)


def fixed_length(lists: pa.ListArray, length: int) -> np.ndarray:
    """Convert N lists of numbers to float32 [N, length]. Longer lists are cut, shorter lists are padded with zeros."""
    offsets = lists.offsets.to_numpy()
    values: np.ndarray = lists.values.to_numpy(zero_copy_only=False)
    if np.all(np.diff(offsets) == length):
        return values[offsets[0] : offsets[-1]].reshape(-1, length)
    fixed = np.zeros((len(lists), length), dtype=np.float32)
    for i in range(len(lists)):
        row = values[offsets[i] : min(offsets[i + 1], offsets[i] + length)]
        fixed[i, : len(row)] = row
    return fixed


def write_series(engine: Engine, table: ir.Table, splits: Splits, prepared: Path, params: Params) -> float:
    """Write the rows of a series to x.npy of each split, and describe the windows in starts.npy, y.npy and group.npy.

    These files have the index of the first row, the class and the group of each window.

    Args:
        engine: The table engine that evaluates expressions.
        table: The validated rows.
        splits: The assignment of groups to splits.
        prepared: Folder of the prepared data.
        params: All parameters of the pipeline.

    Returns:
        The sampling rate of the training rows, in Hz.

    Raises:
        ContractError: Two splits contain the same rows, or no group has enough rows without a gap for a window.
    """
    data = params.data
    assert data.time is not None
    columns = {data.group: pa.string(), "source": pa.string(), data.time: pa.timestamp("us"), data.label: pa.string()}
    columns |= dict.fromkeys(data.columns, pa.float64())
    kept: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in SPLITS}
    names: list[str] = []
    sources: dict[str, int] = {}
    assert params.prepare.window is not None
    runs = RunFingerprints(len(data.columns), params.prepare.window.length)
    with ExitStack() as stack:
        files = {}
        for name in SPLITS:
            (prepared / name).mkdir()
            path = prepared / name / "x.npy"
            files[name] = stack.enter_context(ArrayFile(path, (len(data.columns),), np.float32))
        for batch, group, split in _sorted_batches(engine, table, columns, splits, params, names):
            x = _to_float32(batch, data.columns)
            coded = batch.column("source").dictionary_encode()
            numbers = [sources.setdefault(name, len(sources)) for name in coded.dictionary.to_pylist()]
            source = np.array(numbers, dtype=np.int16)[coded.indices.to_numpy()]
            time = batch.column(data.time).cast(pa.int64()).to_numpy()
            label = class_index(batch.column(data.label), params)
            runs.add(group, source, split, time, x)
            for i, name in enumerate(SPLITS):
                in_split = split == i
                files[name].append(x[in_split])
                kept[name].append((group[in_split], source[in_split], time[in_split], label[in_split]))
    runs.refuse_duplicates(names)
    rate = 0.0
    longest = 0
    total = 0
    for name in SPLITS:
        windows = _write_windows(prepared / name, kept.pop(name), names, params)
        longest, total = max(longest, windows.longest), total + windows.count
        rate = windows.rate_hz if name == "train" else rate
    if total == 0:
        raise ContractError(
            "data/validated",
            f"too few rows for a window: the longest run without a gap within one group has {longest} rows",
            f"at least {params.prepare.window.length} rows (prepare.window.length)",
            "collect longer runs, shorten the window, or allow longer gaps (prepare.window.max_gap_s)",
        )
    return rate


def _to_float32(batch: pa.RecordBatch, columns: list[str]) -> np.ndarray:
    """Return the columns as float32 [rows, channels]. Raises ContractError if float32 cannot hold a value."""
    x = np.stack([batch.column(name).to_numpy(zero_copy_only=False) for name in columns], axis=1)
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32)
    for index in np.flatnonzero(~np.isfinite(narrow).all(axis=0)):
        worst = x[~np.isfinite(narrow[:, index]), index][0]
        raise ContractError(
            f"column {columns[index]}",
            f"found {worst:g}",
            "finite values that float32 can hold",
            "limit the column's values (validate.columns), or convert them to another unit",
        )
    return narrow


@dataclass(frozen=True)
class WindowSummary:
    """Statistics of the windows of one split.

    count: Number of windows.
    longest: Number of rows in the longest part of a series without a gap in time.
    rate_hz: Sampling rate of the rows, in Hz.
    """

    count: int
    longest: int
    rate_hz: float


def _write_windows(
    folder: Path, parts: list[tuple[np.ndarray, ...]], names: list[str], params: Params
) -> WindowSummary:
    window = params.prepare.window
    assert window is not None
    if not parts:  # a table without rows
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
    return WindowSummary(len(starts), int(np.diff(borders).max(initial=0)), rate)


def _write_groups(path: Path, numbers: np.ndarray, names: list[str]) -> None:
    """Write the group name of each sample as fixed-width Unicode text.

    The names are written in blocks, because all names together can need more memory than the samples.

    Args:
        path: The file to write.
        numbers: Group number of each sample, int [N].
        names: Name of each group, by its number.
    """
    used = np.unique(numbers)
    width = max((len(names[i]) for i in used), default=1) or 1
    padded = np.array(names or [""], dtype=f"<U{width}")
    with ArrayFile(path, (), padded.dtype) as file:
        for start in range(0, len(numbers), 1 << 16):
            file.append(padded[numbers[start : start + (1 << 16)]])
