"""Both engines give the same bytes; rows leave them in order, in equal batches; memory stays bounded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from stages.core.errors import ContractError, ParameterError
from stages.params.common import Compute
from stages.tables import engine as tables_engine
from stages.tables.engine import Engine
from stages.tables.parquet import BATCH_ROWS, list_parquet_files, write_parquet
from stages.tables.rounding import round_figure
from tests.support.requirements import need_program
from tests.support.stages.bench import Bench, contents
from tests.support.stages.contract import SERIES, series_rows, write_rows

DUCKDB = Compute(backend="duckdb", memory_limit="1GB", spark_master="local[2]")


@pytest.fixture
def numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """150,000 numbers in no order, in two files."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).permutation(150_000)
    for i, part in enumerate(np.split(values, 2)):
        write_rows(tmp_path, pd.DataFrame({"n": part, "x": part * 0.5}), "in", "s", i)
    return tmp_path / "in" / "s"


def test_rows_come_in_order_and_in_equal_batches(numbers: Path) -> None:
    # given
    schema = pa.schema({"n": pa.int64(), "x": pa.float32()})
    with Engine(DUCKDB) as engine:
        # when
        batches = list(engine.stream(engine.read(list_parquet_files(numbers)).order_by("n"), schema))
    # then
    assert [batch.num_rows for batch in batches] == [BATCH_ROWS, BATCH_ROWS, 150_000 - 2 * BATCH_ROWS]
    assert np.array_equal(np.concatenate([batch.column("n") for batch in batches]), np.arange(150_000))
    assert batches[0].schema == schema


def test_an_engine_removes_its_spilled_data(numbers: Path) -> None:
    with pytest.raises(KeyError), Engine(DUCKDB):
        assert list(tables_engine.SCRATCH.iterdir())
        raise KeyError
    assert not tables_engine.SCRATCH.exists()


def test_spilled_data_of_a_killed_process_is_removed(numbers: Path) -> None:
    # given the spill of a process that was killed, and of one that runs
    killed = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    killed.kill()
    killed.wait()
    for pid in (killed.pid, os.getpid()):
        (tables_engine.SCRATCH / f"tables-{pid}-x").mkdir(parents=True)
    # when
    with Engine(DUCKDB):
        pass
    # then
    assert [folder.name for folder in tables_engine.SCRATCH.iterdir()] == [f"tables-{os.getpid()}-x"]


def test_a_parquet_file_has_the_same_bytes_for_the_same_rows(tmp_path: Path) -> None:
    schema = pa.schema({"n": pa.int64()})
    batch = pa.record_batch({"n": np.arange(10)})
    assert write_parquet(tmp_path / "a", iter([batch]), schema) == 10
    assert write_parquet(tmp_path / "b", iter([batch]), schema) == 10
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_figures_are_rounded_to_reproducible_digits() -> None:
    assert round_figure(0.1 + 0.2) == 0.3
    assert round_figure(float("inf")) is None
    assert round_figure(None) is None


@pytest.mark.parametrize("limit", ["lots", "0GB", "-1GB", "2TB", "1e3MB"])
def test_a_memory_limit_that_is_not_a_size_is_refused(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=r"compute\.memory_limit"):
        Engine(DUCKDB.model_copy(update={"memory_limit": limit}))
    assert list(tables_engine.SCRATCH.iterdir()) == []


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="it has no parquet file"):
        list_parquet_files(tmp_path)


@pytest.mark.slow
def test_spark_gives_the_same_bytes(bench: Bench) -> None:
    # given rows to quarantine and to fill, an even number of values for the median, times with fractions
    need_program("java", "default-jre-headless")
    rows = series_rows(runs=8, rows=40)
    rows["time"] += pd.to_timedelta(np.arange(len(rows)) % 7, unit="ms")
    rows.loc[[4, 5, 40, 41, 319], "flow"] = np.nan
    rows.loc[100, "flow"] = np.inf
    rows.loc[103, "state"] = "burst"
    rows.loc[200, ["pressure", "state"]] = [11.0, "burst"]
    rows = pd.concat([rows, rows.iloc[[20]]], ignore_index=True)
    result: dict[str, dict[str, bytes]] = {}
    for backend in ("duckdb", "pyspark"):
        result[backend] = {}
        for stage, method in (("validate", "median"), ("prepare", "median"), ("prepare", "interpolate")):
            bench.task(SERIES, {"prepare.missing": method}, compute__backend=backend)
            bench.collected(rows)
            # when
            assert bench.run(stage) == 0
            outputs = contents("data", "reports")
            result[backend] |= {f"{method} {name}": content for name, content in outputs.items()}
        for folder in ("data", "reports"):
            shutil.rmtree(folder)
    # then
    assert result["pyspark"].keys() == result["duckdb"].keys()
    differing = [name for name in result["duckdb"] if result["duckdb"][name] != result["pyspark"][name]]
    assert differing == []
    assert any("data/quarantine" in name for name in result["duckdb"])


@pytest.mark.exhaustive
def test_memory_stays_bounded(workspace: Path) -> None:
    # given a table that takes 1.6 GB to prepare where the engine may use what it likes
    from benchmarks.prepare import measure, write_table

    write_table(workspace, 6_000_000, memory_limit="300MB")
    # when
    peak_mb, _ = measure(workspace, "prepare")
    # then
    assert peak_mb < 1100


def test_too_little_memory_is_reported_with_a_message(bench: Bench) -> None:
    # given a table that does not fit the engine's smallest working set
    bench.task(SERIES, compute__memory_limit="8MB")
    bench.validated(series_rows(runs=200, rows=2000))
    # when, then
    message = bench.refused("prepare")
    assert message.startswith("error: params.yaml: compute.memory_limit: not enough for this table")
    assert "raise the limit" in message


@pytest.mark.parametrize(
    ("stage", "folder", "writer"), [("validate", "snapshot", "collect"), ("prepare", "validated", "validate")]
)
def test_a_corrupted_file_is_reported_with_the_stage_that_wrote_it(
    stage: str, folder: str, writer: str, bench: Bench
) -> None:
    # given a file whose pages, not its end, are damaged
    bench.task(SERIES)
    path = (bench.validated if stage == "prepare" else bench.collected)(series_rows())
    content = bytearray(path.read_bytes())
    content[4:2000] = b"\xff" * 1996
    path.write_bytes(content)
    # when
    report = bench.refused(stage)
    # then
    assert report.startswith(f"error: data/{folder}/rig/part-00000.parquet: not readable as parquet")
    assert f"remedy:   run the `{writer}` stage again" in report
