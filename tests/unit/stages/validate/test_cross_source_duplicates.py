"""Copies under another name: quarantined where two sources hold them, refused where two splits would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from stages.core.files import read_json
from tests.support.requirements import need_program
from tests.support.stages.contract import (
    CLIPS,
    IMAGES,
    SERIES,
    call_stage,
    clip_rows,
    image_rows,
    read_prepared,
    series_rows,
    write_rows,
    write_task,
    write_validated,
)

ENGINES = ["duckdb", pytest.param("pyspark", marks=pytest.mark.slow)]
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


@pytest.mark.parametrize("engine", ENGINES)
def test_images_that_a_second_source_holds_under_other_names_are_quarantined(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    need(engine)
    # given a second source: ten copies in another order and of another camera, and pictures of its own
    first, own = image_rows(20), image_rows(20, seed=1)
    copied = first.iloc[[7, 3, 50, 51, 52, 53, 54, 55, 56, 57]].assign(camera="elsewhere", sign="a")
    write_task(workspace, IMAGES, TWO, compute__backend=engine)
    write_rows(workspace, first, source="first")
    write_rows(workspace, pd.concat([own, copied], ignore_index=True), source="second")
    # when
    assert call_stage("validate", monkeypatch) == 0
    # then
    assert len(quarantined("first")) == 0
    bad = quarantined("second")
    assert set(bad["reason"]) == {"copy of a row of another source (values)"}
    assert set(bad["camera"]) == {"elsewhere"} and len(bad) == 10
    found = read_json(Path("reports/quality.json"))
    assert found["overall"]["consistency"]["value"] == pytest.approx(1 - 10 / 250)
    assert found["sources"]["second"]["consistency"]["worst_columns"] == [
        "copy of a row of another source (values) (7.7%)"
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_of_a_series_are_copies_only_where_all_of_them_is_equal(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    need(engine)
    # given the same runs and times from two sources, which differ but in one run; a hole is a value like any other
    first = series_rows()
    first.loc[5, "flow"] = np.nan
    second = first.copy()
    second.loc[second["run"] != "run-00", "flow"] += 0.01
    write_task(workspace, SERIES, TWO, compute__backend=engine)
    write_rows(workspace, first, source="first")
    write_rows(workspace, second, source="second")
    # when
    assert call_stage("validate", monkeypatch) == 0
    # then
    bad = quarantined("second")
    assert len(quarantined("first")) == 0
    assert set(bad["run"]) == {"run-00"} and len(bad) == 60
    assert set(bad["reason"]) == {"copy of a row of another source (the whole row)"}


def test_a_row_that_its_source_loses_is_no_copy_elsewhere(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given the first source does not know the label of a picture that the second one knows
    first = image_rows(20)
    second = pd.concat([image_rows(20, seed=1), first.iloc[[4]]], ignore_index=True)
    first.loc[4, "sign"] = "?"
    write_task(workspace, IMAGES, TWO)
    write_rows(workspace, first, source="first")
    write_rows(workspace, second, source="second")
    # when
    assert call_stage("validate", monkeypatch) == 0
    # then
    assert len(quarantined("first")) == 1
    assert len(quarantined("second")) == 0


def test_many_copies_fail_the_threshold_of_consistency(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = image_rows(20)
    write_task(workspace, IMAGES, TWO | {"validate.thresholds.consistency": 0.99})
    write_rows(workspace, rows, source="first")
    write_rows(workspace, rows.assign(camera="elsewhere"), source="second")

    assert call_stage("validate", monkeypatch) == 1

    said = capsys.readouterr().err
    assert "120 row(s): copy of a row of another source (values)" in said and "consistency" in said


def test_equal_samples_in_two_splits_are_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given clips that are the same once they are cut to data.audio.samples
    rows = clip_rows(takes=10)
    trained = rows.index[rows["take"] == "5"][0]
    tested = rows.index[rows["take"] == "0"][-1]
    values = list(rows["values"])
    values[trained] = np.arange(10, dtype=np.float32) / 10
    values[tested] = np.append(values[trained], np.float32(0.5))
    write_task(workspace, CLIPS)
    write_validated(workspace, rows.assign(values=values))
    # when
    assert call_stage("prepare", monkeypatch) == 1
    # then
    said = capsys.readouterr().err
    assert "1 sample(s) of test are in train too: one of group 'bob' is the same as one of group 'ann'" in said
    assert "expected: no sample in two splits" in said and "give both the same group" in said
    assert not Path("data/prepared").exists()


def test_equal_samples_of_one_split_are_no_leak(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a group whose pictures are all the same
    rows = image_rows(12)
    camera = rows["camera"] == "camera-3"
    one = rows.loc[camera, "values"].iloc[0]
    rows["values"] = [one if same else values for same, values in zip(camera, rows["values"], strict=True)]
    write_task(workspace, IMAGES)
    write_validated(workspace, rows)

    assert call_stage("prepare", monkeypatch) == 0


def test_a_run_under_two_names_in_two_splits_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a test run again under the name of a run that is in training
    rows = series_rows()
    write_task(workspace, SERIES)
    write_validated(workspace, rows)
    assert call_stage("prepare", monkeypatch) == 0
    _, splits = read_prepared()
    tested, trained = splits["test"].group[0], splits["train"].group[0]
    rows = pd.concat([rows[rows["run"] != trained], rows[rows["run"] == tested].assign(run=trained)])
    write_validated(workspace, rows)
    # when
    assert call_stage("prepare", monkeypatch) == 1
    # then
    said = capsys.readouterr().err
    assert "1 group(s) are in two splits under two names" in said and tested in said and trained in said


def test_machines_that_stand_still_together_are_no_copies(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given two runs at the same time, in which nothing moves
    rows = series_rows()
    still = rows["run"].isin(["run-00", "run-01", "run-02", "run-03", "run-04"])
    rows.loc[still, ["pressure", "flow"]] = 0.0
    start = rows["time"].min()
    rows.loc[still, "time"] = start + pd.to_timedelta(rows[still].groupby("run").cumcount(), unit="s")
    write_task(workspace, SERIES)
    write_validated(workspace, rows)

    assert call_stage("prepare", monkeypatch) == 0
