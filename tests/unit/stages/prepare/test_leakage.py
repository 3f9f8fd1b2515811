"""Duplicates in two splits are refused, because a metric on training samples is not meaningful."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tests.support.stages.bench import Bench, read_prepared
from tests.support.stages.contract import CLIPS, IMAGES, SERIES, clip_rows, image_rows, series_rows


def test_equal_samples_in_two_splits_are_refused(bench: Bench) -> None:
    # given clips that are the same once they are cut to data.audio.samples
    rows = clip_rows(takes=10)
    trained = rows.index[rows["take"] == "5"][0]
    tested = rows.index[rows["take"] == "0"][-1]
    values = list(rows["values"])
    values[trained] = np.arange(10, dtype=np.float32) / 10
    values[tested] = np.append(values[trained], np.float32(0.5))
    bench.task(CLIPS)
    bench.validated(rows.assign(values=values))
    # when
    message = bench.refused("prepare")
    assert (
        "1 sample(s) of test are also in train: a sample of group 'bob' is the same as a sample of group 'ann'"
        in message
    )
    assert "expected: no sample in two splits" in message and "give both the same group" in message
    assert not Path("data/prepared").exists()


def test_equal_samples_of_one_split_are_not_leakage(bench: Bench) -> None:
    # given a group whose pictures are all the same
    rows = image_rows(12)
    camera = rows["camera"] == "camera-3"
    one = rows.loc[camera, "values"].iloc[0]
    rows["values"] = [one if same else values for same, values in zip(camera, rows["values"], strict=True)]
    bench.task(IMAGES)
    bench.validated(rows)

    assert bench.run("prepare") == 0


def test_a_run_under_two_names_in_two_splits_is_refused(bench: Bench) -> None:
    # given a test run again under the name of a run that is in training
    rows = series_rows()
    bench.task(SERIES)
    bench.validated(rows)
    assert bench.run("prepare") == 0
    _, splits = read_prepared()
    tested, trained = splits["test"].group[0], splits["train"].group[0]
    rows = pd.concat([rows[rows["run"] != trained], rows[rows["run"] == tested].assign(run=trained)])
    bench.validated(rows)
    # when
    message = bench.refused("prepare")
    assert "1 group(s) are in two splits under two names" in message and tested in message and trained in message


def test_machines_that_are_off_at_the_same_time_are_not_duplicates(bench: Bench) -> None:
    # given two runs at the same time, in which nothing moves
    rows = series_rows()
    still = rows["run"].isin(["run-00", "run-01", "run-02", "run-03", "run-04"])
    rows.loc[still, ["pressure", "flow"]] = 0.0
    start = rows["time"].min()
    rows.loc[still, "time"] = start + pd.to_timedelta(rows[still].groupby("run").cumcount(), unit="s")
    bench.task(SERIES)
    bench.validated(rows)

    assert bench.run("prepare") == 0
