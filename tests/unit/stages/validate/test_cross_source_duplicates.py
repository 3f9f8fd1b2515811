"""Duplicates of rows in two sources are quarantined."""

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
TWO = {
    "collect.sources": {"first": SOURCE, "second": SOURCE},
    "validate.quarantine_share": 1.0,
    "validate.thresholds.consistency": 0.0,
}


def quarantined(source: str) -> pd.DataFrame:
    return pq.read_table(f"data/quarantine/{source}/part-00000.parquet").to_pandas()


def need(engine: str) -> None:
    if engine == "pyspark":
        need_program("java", "default-jre-headless")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_images_that_a_second_source_contains_are_quarantined(bench: Bench, engine: str) -> None:
    need(engine)
    # given a second source: ten duplicates in another order and with other names, and ten new pictures
    first, own = image_rows(20), image_rows(20, seed=1)
    copied = first.iloc[[7, 3, 50, 51, 52, 53, 54, 55, 56, 57]].assign(camera="elsewhere")
    bench.task(IMAGES, TWO, compute__backend=engine)
    bench.collected(first, source="first")
    bench.collected(pd.concat([own, copied], ignore_index=True), source="second")
    # when
    assert bench.run("validate") == 0
    # then
    assert len(quarantined("first")) == 0
    bad = quarantined("second")
    assert set(bad["reason"]) == {"copy of a row of another source (values, sign)"}
    assert set(bad["camera"]) == {"elsewhere"} and len(bad) == 10
    result = read_json(Path("reports/quality.json"))
    assert result["overall"]["consistency"]["value"] == pytest.approx(1 - 10 / 250)
    assert result["sources"]["second"]["consistency"]["worst_columns"] == [
        "copy of a row of another source (values, sign) (7.7%)"
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_of_a_series_are_duplicates_only_if_every_column_is_equal(bench: Bench, engine: str) -> None:
    need(engine)
    # given two sources that have one run in common; a hole is a value like any other
    first = series_rows()
    first.loc[5, "flow"] = np.nan
    second = first.copy()
    second.loc[second["run"] != "run-00", "run"] += " of the second"
    bench.task(SERIES, TWO, compute__backend=engine)
    bench.collected(first, source="first")
    bench.collected(second, source="second")
    # when
    assert bench.run("validate") == 0
    # then
    bad = quarantined("second")
    assert len(quarantined("first")) == 0
    assert set(bad["run"]) == {"run-00"} and len(bad) == 60
    assert set(bad["reason"]) == {"copy of a row of another source (the whole row)"}


def test_a_row_that_is_quarantined_in_its_source_is_not_a_duplicate(bench: Bench) -> None:
    # given the first source does not know the label of a picture that the second one knows
    first = image_rows(20)
    second = pd.concat([image_rows(20, seed=1), first.iloc[[4]]], ignore_index=True)
    first.loc[4, "sign"] = "?"
    bench.task(IMAGES, TWO)
    bench.collected(first, source="first")
    bench.collected(second, source="second")
    # when
    assert bench.run("validate") == 0
    # then
    assert len(quarantined("first")) == 1
    assert len(quarantined("second")) == 0


def test_many_duplicates_fail_the_threshold_of_consistency(bench: Bench) -> None:
    rows = image_rows(20)
    bench.task(IMAGES, TWO | {"validate.thresholds.consistency": 0.99})
    bench.collected(rows, source="first")
    bench.collected(rows.assign(camera="elsewhere"), source="second")

    message = bench.refused("validate")
    assert "120 row(s): copy of a row of another source (values, sign)" in message and "consistency" in message
