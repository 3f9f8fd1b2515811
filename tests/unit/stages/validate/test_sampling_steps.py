"""Time steps are counted in the order of the files and across their borders."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stages.validate.sampling_steps import Steps, count_steps


def _write(path: Path, rows: list[tuple[str | None, float | None]]) -> Path:
    frame = pd.DataFrame(rows, columns=["run", "time"])
    frame["time"] = pd.to_datetime(frame["time"], unit="s").astype("datetime64[us]")
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, row_group_size=2)
    return path


def test_steps_are_those_of_each_group_across_files(tmp_path: Path) -> None:
    # given two runs, woven, in two files; one steps back once, one pauses once
    first = _write(tmp_path / "0.parquet", [("a", 0), ("b", 100), ("a", 1), ("b", 101), ("a", 2)])
    second = _write(tmp_path / "1.parquet", [("b", 100.5), ("a", 3), ("b", 101.5), ("a", 9), (None, 5), ("a", None)])
    # when
    steps = count_steps([first, second], "run", "time", 1.0, 0.1)
    # then a: 1, 1, 1, 6 and b: 1, -0.5, 1
    assert steps == Steps(total=7, forward=6, regular=5)


def test_one_row_has_no_step(tmp_path: Path) -> None:
    assert count_steps([_write(tmp_path / "0.parquet", [("a", 0)])], "run", "time", 1.0, 0.1) == Steps(0, 0, 0)
