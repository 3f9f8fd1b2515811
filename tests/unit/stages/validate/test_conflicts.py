"""Rows with the same key: of equal rows one is kept, of contradictory rows none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from stages.core.files import read_json
from tests.support.requirements import need_program
from tests.support.stages.bench import Bench
from tests.support.stages.contract import IMAGES, SERIES, image_rows, series_rows

pytestmark = pytest.mark.slow

ENGINES = ["duckdb", pytest.param("pyspark", marks=pytest.mark.exhaustive)]
SOURCE = {"type": "embedded", "dataset": "sklearn-digits"}  # collect is not run here
TWO = {"collect.sources": {"first": SOURCE, "second": SOURCE}}
DUPLICATE = "duplicate of another row (run, time)"
CONFLICT = "conflict with another row (the same run and time, but other values)"
ACROSS = "conflict with a row of another source (the same run and time, but other values)"


def read(folder: str, source: str = "rig") -> pd.DataFrame:
    return pq.read_table(f"data/{folder}/{source}/part-00000.parquet").to_pandas()


def keys(rows: pd.DataFrame) -> set[tuple[str, pd.Timestamp]]:
    return set(zip(rows["run"], rows["time"], strict=True))


def need(engine: str) -> None:
    if engine == "pyspark":
        need_program("java", "default-jre-headless")


@pytest.mark.parametrize("engine", ENGINES)
def test_of_contradictory_rows_none_is_kept(bench: Bench, engine: str) -> None:
    need(engine)
    # given a row twice, rows with another value, another label, a hole, and three rows of which two are equal
    rows = series_rows()
    flow, label, hole, three = (rows.iloc[[i]].copy() for i in (20, 30, 40, 45))
    flow["flow"] += 1
    label["state"] = "ok"  # run-00 leaks from row 30 on
    hole["flow"] = np.nan
    three["pressure"] += 0.1
    extra = [rows.iloc[[10]], flow, label, hole, three, rows.iloc[[45]]]
    bench.task(SERIES, compute__backend=engine)
    bench.collected(pd.concat([rows, *extra], ignore_index=True))
    # when
    assert bench.run("validate") == 0
    # then
    bad, kept = read("quarantine"), read("validated")
    assert keys(rows.iloc[[20, 30, 40, 45]]).isdisjoint(keys(kept))
    assert len(kept) == len(rows) - 4
    assert sorted(bad["reason"]) == [*[CONFLICT] * 8, DUPLICATE, f"{DUPLICATE}; {CONFLICT}"]
    quality = read_json(Path("reports/quality.json"))
    assert quality["quarantine"]["rows"] == 10
    assert quality["quarantine"]["reasons"] == {CONFLICT: 9, DUPLICATE: 2}
    assert quality["overall"]["consistency"]["value"] == pytest.approx(1 - 9 / 606)


def test_contradictory_rows_count_against_the_share_of_the_quarantine(bench: Bench) -> None:
    rows = series_rows()
    other = rows.iloc[:20].assign(flow=rows["flow"].iloc[:20] + 1)
    bench.task(SERIES)
    bench.collected(pd.concat([rows, other], ignore_index=True))

    message = bench.refused("validate")
    assert "40 rows (6.45%) would go to quarantine" in message
    assert f"40 row(s): {CONFLICT}; first in source rig, run run-00, time 2026-10-01 00:00:00" in message


@pytest.mark.parametrize("engine", ENGINES)
def test_of_rows_on_which_two_sources_disagree_none_is_kept(bench: Bench, engine: str) -> None:
    need(engine)
    # given a second source with a row of the first one, one with another flow, one that is invalid, and new rows
    first = series_rows()
    second = series_rows(seed=1).assign(run=lambda rows: rows["run"] + " of the second")
    changed, invalid = first.iloc[[30]].copy(), first.iloc[[50]].copy()
    changed["flow"] += 1
    invalid["flow"] = -5.0
    bench.task(SERIES, TWO, compute__backend=engine)
    bench.collected(first, source="first")
    bench.collected(pd.concat([second, first.iloc[[7]], changed, invalid], ignore_index=True), source="second")
    # when
    assert bench.run("validate") == 0
    # then
    assert read("quarantine", "first")["reason"].tolist() == [ACROSS]
    assert sorted(read("quarantine", "second")["reason"]) == [
        ACROSS,
        "copy of a row of another source (the whole row)",
        "flow: outside 0..100",
    ]
    assert keys(read("validated", "first")) == keys(first) - keys(changed)
    assert keys(read("validated", "second")) == keys(second)
    quality = read_json(Path("reports/quality.json"))
    assert quality["quarantine"]["rows"] == 4
    assert quality["sources"]["first"]["quarantined"] == 1
    assert quality["sources"]["first"]["consistency"]["value"] == pytest.approx(1 - 1 / 600)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_with_two_labels_is_not_kept(bench: Bench, engine: str) -> None:
    need(engine)
    # given an image twice under two names, one with two labels, and one with another label in a second source
    first, second = image_rows(30), image_rows(30, seed=1)
    same, other, across = (first.iloc[[i]].assign(camera="elsewhere") for i in (3, 5, 8))
    other["sign"], across["sign"] = "a", "b"
    bench.task(IMAGES, TWO, compute__backend=engine)
    bench.collected(pd.concat([first, same, other], ignore_index=True), source="first")
    bench.collected(pd.concat([second, across], ignore_index=True), source="second")
    # when
    assert bench.run("validate") == 0
    # then
    conflict = "conflict with another row (the same values, but another sign)"
    elsewhere = "conflict with a row of another source (the same values, but another sign)"
    assert sorted(read("quarantine", "first")["reason"]) == [
        elsewhere, conflict, conflict, "duplicate of another row (values)",
    ]  # fmt: skip
    assert read("quarantine", "second")["reason"].tolist() == [elsewhere]
    assert (len(read("validated", "first")), len(read("validated", "second"))) == (178, 180)
