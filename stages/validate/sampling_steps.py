"""Check the time steps between consecutive rows of a group, in the order in which the files store the rows.

The rows of a table in DuckDB or Spark have no order, so this module reads the group and time columns from the files,
batch by batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.tables.casting import cast_cells
from stages.validate.quality import Share

if TYPE_CHECKING:
    from stages.params.common import Data
    from stages.params.validate import Sampling

MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Steps:
    """The numbers of time steps in a source.

    total: Number of all steps.
    forward: Number of steps that lead forward in time.
    regular: Number of steps that have the expected length, within the tolerance.
    """

    total: int
    forward: int
    regular: int


def step_shares(paths: list[Path], data: Data, sampling: Sampling | None) -> dict[str, Share]:
    """Return a mapping from the text of each rule about time steps to the fraction of steps that meet the rule.

    One rule requires that each step leads forward in time, the other rule that it has the expected length.

    Args:
        paths: The files of a source, in order.
        data: The task's `data` parameters. If they name no time column, the result is empty.
        sampling: The expected length of a step and its tolerance. If None, the length is not checked.
    """
    if data.time is None:
        return {}
    interval, tolerance = (sampling.interval_s, sampling.tolerance_s) if sampling else (0.0, 0.0)
    steps = count_steps(paths, data.group, data.time, interval, tolerance)
    shares = {f"{data.time}: not in order": Share(steps.forward, steps.total)}
    if sampling:
        shares[f"{data.time}: step is not {interval:g} s +- {tolerance:g} s"] = Share(steps.regular, steps.total)
    return shares


def count_steps(paths: list[Path], group: str, time: str, interval_s: float, tolerance_s: float) -> Steps:
    """Count the time steps from each row to the next row of its group. Rows without a group or a time are skipped.

    Args:
        paths: The files of a source, in order.
        group: Name of the column with the group.
        time: Name of the column with the time.
        interval_s: Expected length of a step, in seconds.
        tolerance_s: Maximum difference between the length of a regular step and `interval_s`, in seconds.
    """
    last: dict[str, int] = {}
    total = forward = regular = 0
    for path in paths:
        for batch in pq.ParquetFile(path).iter_batches(columns=[group, time]):
            steps = _steps(batch.column(group), batch.column(time), last)
            total += len(steps)
            forward += int(np.count_nonzero(steps > 0))
            deviation = np.abs(steps / MICROSECONDS - interval_s)
            regular += int(np.count_nonzero(deviation <= tolerance_s + 1e-9))
    return Steps(total, forward, regular)


def _steps(groups: pa.Array, times: pa.Array, last: dict[str, int]) -> np.ndarray:
    """Return the lengths of all time steps that end in this batch of rows, in microseconds.

    The function updates `last`, which maps each group to the time of the last row that was read.
    """
    if pa.types.is_string(times.type) or pa.types.is_large_string(times.type):
        times = cast_cells(times, pa.timestamp("us"))
    present = pc.and_(pc.is_valid(groups), pc.is_valid(times))
    coded = pc.cast(groups.filter(present), pa.string()).dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    micros = (
        pc.cast(times.filter(present), pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy(zero_copy_only=False)
    )
    order = np.argsort(codes, kind="stable")
    codes, micros = codes[order], micros[order]
    first = np.ones(len(codes), dtype=bool)
    first[1:] = codes[1:] != codes[:-1]
    steps: np.ndarray = np.diff(micros, prepend=0)
    names = coded.dictionary.to_pylist()
    has_previous = np.ones(len(codes), dtype=bool)
    for i in np.flatnonzero(first):
        name = names[codes[i]]
        has_previous[i] = name in last
        steps[i] = micros[i] - last.get(name, 0)
    for i in np.flatnonzero(np.append(first[1:], True)) if len(codes) else []:
        last[names[codes[i]]] = int(micros[i])
    result: np.ndarray = steps[has_previous]
    return result
