"""prepare: whole groups in splits, windows that span nothing, statistics of the training split alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.core.dataset import SPLITS, SampleSpec
from stages.core.files import read_json
from tests.support.stages.bench import PREPARED, Bench, contents, read_prepared
from tests.support.stages.contract import CLIPS, IMAGES, SERIES, clip_rows, holes, image_rows, series_rows

OUTPUTS = ("data/prepared", "data/drift_reference.json", "reports")


def test_a_series_becomes_windows_of_whole_groups(bench: Bench) -> None:
    # given rows in no order, one run with a pause
    rows = series_rows()
    rows.loc[rows["run"].eq("run-03") & (rows.index % 60 >= 30), "time"] += pd.Timedelta(seconds=60)
    bench.task(SERIES)
    bench.validated(rows.sample(frac=1, random_state=1))
    # when
    assert bench.run("prepare") == 0
    # then
    spec, splits = read_prepared()
    assert spec.shape == [2, 8]
    assert spec.classes == ["normal", "leak"]
    assert spec.rate_hz == 1.0
    groups = {name: set(np.unique(split.group)) for name, split in splits.items()}
    assert [len(groups[name]) for name in SPLITS] == [6, 2, 2]
    assert set.union(*groups.values()) == set(rows["run"])
    for name, split in splits.items():
        assert sum(len(split.x) for split in splits.values()) == len(rows)
        for i in range(len(split)):
            run = rows[rows["run"] == split.group[i]].reset_index(drop=True)
            x = split.samples(np.array([i]))[0]
            at = int(np.flatnonzero(run["pressure"].astype(np.float32) == x[0, 0])[0])
            window = run.iloc[at : at + 8]
            assert x == pytest.approx(window[["pressure", "flow"]].to_numpy(np.float32).T), name
            assert window["time"].diff().max() == pd.Timedelta(seconds=1)
            assert split.y[i] == int((window["state"] == "leak").sum() > 4)
    balance = read_json(Path("reports/balance.json"))
    assert balance["splits"]["train"]["samples"] == len(splits["train"])
    assert balance["splits"]["train"]["groups"] == 6
    assert sum(balance["splits"]["test"]["classes"].values()) == len(splits["test"])


def test_statistics_are_of_the_training_split_alone(bench: Bench) -> None:
    # given
    rows = series_rows()
    bench.task(SERIES)
    bench.validated(rows)
    assert bench.run("prepare") == 0
    spec, splits = read_prepared()
    train = rows[rows["run"].isin(np.unique(splits["train"].group))]
    assert spec.scaling.center == pytest.approx(train[["pressure", "flow"]].mean().tolist(), rel=1e-6)
    assert spec.scaling.scale == pytest.approx(train[["pressure", "flow"]].std(ddof=0).tolist(), rel=1e-6)
    reference = read_json(Path("data/drift_reference.json"))
    # when the other groups become quite different
    rows.loc[~rows.index.isin(train.index), ["pressure", "flow"]] *= 3
    bench.validated(rows)
    assert bench.run("prepare") == 0
    # then
    assert SampleSpec.read(PREPARED).scaling == spec.scaling
    assert read_json(Path("data/drift_reference.json")) == reference
    assert [feature["name"] for feature in reference["features"]] == [
        "pressure.mean",
        "pressure.std",
        "flow.mean",
        "flow.std",
    ]
    assert reference["samples"] == len(splits["train"])


def test_min_max_and_no_scaling(bench: Bench) -> None:
    bench.validated(series_rows())
    for method in ("normalise", "none"):
        bench.task(SERIES, {"prepare.scaling": method})
        assert bench.run("prepare") == 0
        spec, splits = read_prepared()
        x = splits["train"].x
        low, high = x.min(axis=0), x.max(axis=0)
        expected = (low, high - low) if method == "normalise" else ([0.0, 0.0], [1.0, 1.0])
        assert spec.scaling.center == pytest.approx(expected[0], rel=1e-6)
        assert spec.scaling.scale == pytest.approx(expected[1], rel=1e-6)


def test_two_sources_are_not_joined_in_one_window(bench: Bench) -> None:
    # given two loggers that stamped the same runs, half a second apart, with flows far apart
    rows = series_rows()
    other = rows.assign(flow=rows["flow"] + 50, time=rows["time"] + pd.Timedelta(milliseconds=500))
    bench.task(SERIES)
    bench.validated(rows, "rig")
    bench.validated(other, "yard")
    # when
    assert bench.run("prepare") == 0
    # then
    for split in read_prepared()[1].values():
        flow = split.samples(slice(None))[:, 1]
        assert (np.ptp(flow, axis=1) < 30).all()


def test_images_keep_their_shape_and_order(bench: Bench) -> None:
    # given
    rows = image_rows()
    bench.task(IMAGES)
    bench.validated(rows.sample(frac=1, random_state=2))
    # when
    assert bench.run("prepare") == 0
    # then
    spec, splits = read_prepared()
    assert spec.shape == [2, 2, 3]
    stored = {tuple(v): (c, s) for v, c, s in zip(rows["values"], rows["camera"], rows["sign"], strict=True)}
    for split in splits.values():
        for x, y, group in zip(split.samples(slice(None)), split.y, split.group, strict=True):
            assert stored.pop(tuple(x.reshape(-1))) == (group, "ab"[y])
    assert not stored


def test_an_official_split_with_validation_by_row(bench: Bench) -> None:
    # given clips whose takes 0 and 1 are test samples for every speaker
    rows = clip_rows()
    bench.task(CLIPS)
    bench.validated(rows)
    # when
    assert bench.run("prepare") == 0
    # then
    spec, splits = read_prepared()
    assert spec.shape == [1, 10]
    assert spec.rate_hz == 8000
    assert spec.features is not None
    assert {name: len(split) for name, split in splits.items()} == {"train": 24, "validation": 8, "test": 8}
    assert np.bincount(splits["validation"].y).tolist() == [4, 4]
    official = rows[rows["take"].isin(["0", "1"])]["values"]
    padded = {tuple(np.pad(v, (0, 10))[:10]) for v in official}
    assert {tuple(x[0]) for x in splits["test"].samples(slice(None))} == padded


def test_an_official_split_with_validation_by_group(bench: Bench) -> None:
    # given cameras 0 and 1 as the official test split
    split = {
        "method": "column",
        "column": "camera",
        "test_values": ["camera-0", "camera-1"],
        "validation": 0.3,
        "validation_by": "group",
    }
    bench.task(IMAGES, {"prepare.split": split})
    bench.validated(image_rows())
    # when
    assert bench.run("prepare") == 0
    # then
    groups = {name: set(np.unique(split.group)) for name, split in read_prepared()[1].items()}
    assert groups["test"] == {"camera-0", "camera-1"}
    assert [len(groups[name]) for name in SPLITS] == [4, 2, 2]


def test_the_same_rows_give_the_same_bytes(bench: Bench) -> None:
    # given
    rows = holes()
    bench.task(SERIES)
    bench.validated(rows)
    assert bench.run("prepare") == 0
    first = contents(*OUTPUTS)
    # when they are stored in another order
    bench.validated(rows.sample(frac=1, random_state=3))
    assert bench.run("prepare") == 0
    # then
    assert contents(*OUTPUTS) == first


def test_the_seed_decides_the_groups(bench: Bench) -> None:
    bench.validated(image_rows(40))
    chosen = []
    for seed in (1, 1, 2):
        bench.task(IMAGES, seed=seed)
        assert bench.run("prepare") == 0
        chosen.append(sorted(set(read_prepared()[1]["test"].group)))
    assert chosen[0] == chosen[1] != chosen[2]
