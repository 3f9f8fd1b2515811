"""prepare: whole groups in splits, windows that span nothing, statistics of the training split alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.dataset import SPLITS, SampleSpec, Split
from stages.files import read_json
from tests.contract_fixtures import (
    IMAGES,
    SERIES,
    call_stage,
    contents,
    image_rows,
    series_rows,
    write_rows,
    write_task,
)

PREPARED = Path("data/prepared")
OUTPUTS = ("data/prepared", "data/drift_reference.json", "reports")
CLIPS: dict[str, Any] = {
    **IMAGES,
    "data": IMAGES["data"]
    | {
        "kind": "audio",
        "group": "speaker",
        "label": "word",
        "channels": {"sound": {"unit": "full scale"}},
        "image": None,
        "audio": {"sample_rate_hz": 8000, "samples": 10},
    },
    "prepare": IMAGES["prepare"]
    | {
        "scaling": "none",
        "features": {"type": "log-mel", "frame": 4, "hop": 2, "bands": 3, "coefficients": None},
        "split": {
            "method": "column",
            "column": "take",
            "test_values": ["0", "1"],
            "validation": 0.25,
            "validation_by": "row",
        },
    },
}


def _validated(workspace: Path, rows: pd.DataFrame, source: str = "rig") -> None:
    write_rows(workspace, rows.assign(source=source), "data/validated", source)


def _clips(takes: int = 10) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "values": rng.uniform(-1, 1, rng.integers(5, 16)).astype(np.float32),
            "speaker": speaker,
            "word": word,
            "take": str(take),
        }
        for speaker in ("ann", "bob")
        for word in "ab"
        for take in range(takes)
    ]
    return pd.DataFrame(rows)


def _open() -> tuple[SampleSpec, dict[str, Split]]:
    return SampleSpec.read(PREPARED), {name: Split.open(PREPARED, name) for name in SPLITS}


def test_a_series_becomes_windows_of_whole_groups(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given rows in no order, one run with a pause
    rows = series_rows()
    rows.loc[rows["run"].eq("run-03") & (rows.index % 60 >= 30), "time"] += pd.Timedelta(seconds=60)
    write_task(workspace, SERIES)
    _validated(workspace, rows.sample(frac=1, random_state=1))
    # when
    assert call_stage("prepare", monkeypatch) == 0
    # then
    spec, splits = _open()
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


def test_statistics_are_of_the_training_split_alone(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    rows = series_rows()
    write_task(workspace, SERIES)
    _validated(workspace, rows)
    assert call_stage("prepare", monkeypatch) == 0
    spec, splits = _open()
    train = rows[rows["run"].isin(np.unique(splits["train"].group))]
    assert spec.scaling.center == pytest.approx(train[["pressure", "flow"]].mean().tolist(), rel=1e-6)
    assert spec.scaling.scale == pytest.approx(train[["pressure", "flow"]].std(ddof=0).tolist(), rel=1e-6)
    reference = read_json(Path("data/drift_reference.json"))
    # when the other groups become quite different
    rows.loc[~rows.index.isin(train.index), ["pressure", "flow"]] *= 3
    _validated(workspace, rows)
    assert call_stage("prepare", monkeypatch) == 0
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


def test_min_max_and_no_scaling(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _validated(workspace, series_rows())
    for method in ("normalise", "none"):
        write_task(workspace, SERIES, {"prepare.scaling": method})
        assert call_stage("prepare", monkeypatch) == 0
        spec, splits = _open()
        x = splits["train"].x
        low, high = x.min(axis=0), x.max(axis=0)
        expected = (low, high - low) if method == "normalise" else ([0.0, 0.0], [1.0, 1.0])
        assert spec.scaling.center == pytest.approx(expected[0], rel=1e-6)
        assert spec.scaling.scale == pytest.approx(expected[1], rel=1e-6)


def _holes() -> pd.DataFrame:
    rows = series_rows()
    rows.loc[[10, 11], "flow"] = np.nan  # between two values
    rows.loc[[60, 61], "flow"] = np.nan  # at the beginning of a run
    rows.loc[[599], "flow"] = np.nan  # at the end of one
    rows.loc[12, "time"] += pd.Timedelta(milliseconds=500)
    return rows


def test_interpolation_is_linear_in_time_within_a_group(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    rows = _holes()
    write_task(workspace, SERIES, {"prepare.missing": "interpolate"})
    _validated(workspace, rows)
    # when
    assert call_stage("prepare", monkeypatch) == 0
    # then
    flow = _flow_by_row(rows)
    before, after = rows.loc[9, "flow"], rows.loc[12, "flow"]
    assert flow[10] == pytest.approx(before + (after - before) / 3.5, rel=1e-6)
    assert flow[11] == pytest.approx(before + (after - before) * 2 / 3.5, rel=1e-6)
    assert flow[[60, 61]] == pytest.approx([rows.loc[62, "flow"]] * 2, rel=1e-6)
    assert flow[599] == pytest.approx(rows.loc[598, "flow"], rel=1e-6)
    untouched = rows.index[rows["flow"].notna()]
    assert flow[untouched] == pytest.approx(rows.loc[untouched, "flow"].to_numpy(), rel=1e-6)


@pytest.mark.parametrize("method", ["mean", "median"])
def test_constants_come_from_the_training_split(method: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    rows = _holes()
    write_task(workspace, SERIES, {"prepare.missing": method})
    _validated(workspace, rows)
    # when
    assert call_stage("prepare", monkeypatch) == 0
    # then
    train = rows[rows["run"].isin(np.unique(_open()[1]["train"].group))]
    flow = _flow_by_row(rows)
    assert flow[[10, 11, 60, 61, 599]] == pytest.approx([train["flow"].agg(method)] * 5, rel=1e-6)
    assert read_json(Path("reports/balance.json"))["missing"] == {
        "method": method,
        "values": {"flow": 5},
        "rows_dropped": 0,
    }


def test_rows_with_holes_can_be_dropped(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    rows = _holes()
    write_task(workspace, SERIES, {"prepare.missing": "drop"})
    _validated(workspace, rows)
    # when
    assert call_stage("prepare", monkeypatch) == 0
    # then
    assert sum(len(split.x) for split in _open()[1].values()) == 595
    assert read_json(Path("reports/balance.json"))["missing"]["rows_dropped"] == 5


def _flow_by_row(rows: pd.DataFrame) -> np.ndarray:
    """The prepared flow of every row, in the order of `rows`: runs and times are ascending there."""
    flow = np.full(len(rows), np.nan)
    for split in _open()[1].values():
        mine = rows.index[rows["run"].isin(np.unique(split.group))]
        flow[mine] = split.x[:, 1]
    return flow


def test_two_sources_are_not_joined_in_one_window(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given two loggers that stamped the same runs, half a second apart, with flows far apart
    rows = series_rows()
    other = rows.assign(flow=rows["flow"] + 50, time=rows["time"] + pd.Timedelta(milliseconds=500))
    write_task(workspace, SERIES)
    _validated(workspace, rows, "rig")
    _validated(workspace, other, "yard")
    # when
    assert call_stage("prepare", monkeypatch) == 0
    # then
    for split in _open()[1].values():
        flow = split.samples(slice(None))[:, 1]
        assert (np.ptp(flow, axis=1) < 30).all()


def test_images_keep_their_shape_and_order(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    rows = image_rows()
    write_task(workspace, IMAGES)
    _validated(workspace, rows.sample(frac=1, random_state=2))
    # when
    assert call_stage("prepare", monkeypatch) == 0
    # then
    spec, splits = _open()
    assert spec.shape == [2, 2, 3]
    stored = {tuple(v): (c, s) for v, c, s in zip(rows["values"], rows["camera"], rows["sign"], strict=True)}
    for split in splits.values():
        for x, y, group in zip(split.samples(slice(None)), split.y, split.group, strict=True):
            assert stored.pop(tuple(x.reshape(-1))) == (group, "ab"[y])
    assert not stored


def test_an_official_split_with_validation_by_row(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given clips of which takes 0 and 1 are for testing, whoever speaks
    rows = _clips()
    write_task(workspace, CLIPS)
    _validated(workspace, rows)
    # when
    assert call_stage("prepare", monkeypatch) == 0
    # then
    spec, splits = _open()
    assert spec.shape == [1, 10]
    assert spec.rate_hz == 8000
    assert spec.features is not None
    assert {name: len(split) for name, split in splits.items()} == {"train": 24, "validation": 8, "test": 8}
    assert np.bincount(splits["validation"].y).tolist() == [4, 4]
    official = rows[rows["take"].isin(["0", "1"])]["values"]
    padded = {tuple(np.pad(v, (0, 10))[:10]) for v in official}
    assert {tuple(x[0]) for x in splits["test"].samples(slice(None))} == padded


def test_an_official_split_with_validation_by_group(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given cameras 0 and 1 as the official test split
    split = {
        "method": "column",
        "column": "camera",
        "test_values": ["camera-0", "camera-1"],
        "validation": 0.3,
        "validation_by": "group",
    }
    write_task(workspace, IMAGES, {"prepare.split": split})
    _validated(workspace, image_rows())
    # when
    assert call_stage("prepare", monkeypatch) == 0
    # then
    groups = {name: set(np.unique(split.group)) for name, split in _open()[1].items()}
    assert groups["test"] == {"camera-0", "camera-1"}
    assert [len(groups[name]) for name in SPLITS] == [4, 2, 2]


def test_the_same_rows_give_the_same_bytes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    rows = _holes()
    write_task(workspace, SERIES)
    _validated(workspace, rows)
    assert call_stage("prepare", monkeypatch) == 0
    first = contents(*OUTPUTS)
    # when they are stored in another order
    _validated(workspace, rows.sample(frac=1, random_state=3))
    assert call_stage("prepare", monkeypatch) == 0
    # then
    assert contents(*OUTPUTS) == first


def test_the_seed_decides_the_groups(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _validated(workspace, image_rows(40))
    chosen = []
    for seed in (1, 1, 2):
        write_task(workspace, IMAGES, seed=seed)
        assert call_stage("prepare", monkeypatch) == 0
        chosen.append(sorted(set(_open()[1]["test"].group)))
    assert chosen[0] == chosen[1] != chosen[2]


Change = Callable[[pd.DataFrame], pd.DataFrame]
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], Change | None, list[str]]] = {
    "too few rows for a window": (
        SERIES,
        {"prepare.window": {"length": 61, "stride": 1, "max_gap_s": 2.5, "label": "last"}},
        None,
        ["too few rows for a window", "has 60 rows", "at least 61", "shorten the window"],
    ),
    "too few groups": (
        SERIES,
        {},
        lambda r: r[r["run"].isin(["run-00", "run-01"])],
        ["split", "would be empty", "there are 2 group(s)", "collect more groups"],
    ),
    "a class that training lacks": (
        CLIPS,
        {},
        lambda r: r[r["word"].eq("a") | r["take"].isin(["0", "1"])],
        ["split train: no sample of class 'b' (4 in other splits)", "take the class out"],
    ),
    "constant channel": (
        SERIES,
        {},
        lambda r: r.assign(flow=4.0),
        ["channel flow: it is 4 in all", "take the channel out"],
    ),
    "no rows": (SERIES, {}, lambda r: r.iloc[:0], ["data/validated: no row is left", "run python -m stages.validate"]),
    "holes in every row": (
        SERIES,
        {"prepare.missing": "drop"},
        lambda r: r.assign(flow=np.nan),
        ["data/validated: no row is left, 600 were dropped for missing values", "prepare.missing"],
    ),
    "a group without a value": (
        SERIES,
        {},
        lambda r: r.assign(flow=r["flow"].mask(r["run"] == "run-05")),
        ["column flow", "60 missing values cannot be filled by interpolate", "a whole group has no value"],
    ),
    "a value that float32 cannot hold": (
        SERIES,
        {},
        lambda r: r.assign(flow=[1e39, *r["flow"][1:]]),
        ["column flow: found 1e+39", "float32"],
    ),
    "a split column that is not there": (
        IMAGES,
        {
            "prepare.split": {
                "method": "column",
                "column": "take",
                "test_values": ["0"],
                "validation": 0.2,
                "validation_by": "row",
            }
        },
        None,
        ["column take: it is missing", "prepare.split.column"],
    ),
    "an official split that divides groups": (
        CLIPS,
        {"prepare.split.validation_by": "group"},
        None,
        ["2 group(s), 'ann' for one, are inside and outside", "validation_by: row"],
    ),
    "a window for images": (
        IMAGES,
        {"prepare.window": SERIES["prepare"]["window"]},
        None,
        ["prepare.window", "null for image and audio"],
    ),
    "features for images": (IMAGES, {"prepare.features": CLIPS["prepare"]["features"]}, None, ["prepare.features"]),
    "a frame longer than a clip": (CLIPS, {"prepare.features.frame": 11}, None, ["features.frame", "at most", "10"]),
    "interpolated images": (IMAGES, {"prepare.missing": "mean"}, None, ["prepare.missing", "whole, or it is none"]),
    "rows of a series split at random": (
        SERIES,
        {"prepare.split": CLIPS["prepare"]["split"]},
        None,
        ["split.validation_by", "too alike"],
    ),
    "stereo clips": (
        CLIPS,
        {"data.channels": {"left": {"unit": "1"}, "right": {"unit": "1"}}},
        None,
        ["found 2 channels", "one channel"],
    ),
    "shares that leave no training": (
        SERIES,
        {"prepare.split.validation": 0.5, "prepare.split.test": 0.5},
        None,
        ["leave nothing to train on"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_earlier_outputs_stay(
    name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given outputs of an earlier run, and one fault
    blocks, changes, spoil, words = BAD[name]
    write_task(workspace, blocks, changes)
    rows = {"series": series_rows, "image": image_rows, "audio": _clips}[blocks["data"]["kind"]]()
    _validated(workspace, spoil(rows) if spoil else rows)
    PREPARED.mkdir()
    (PREPARED / "earlier").write_text("earlier", encoding="utf-8")
    before = contents(*OUTPUTS)
    # when
    code = call_stage("prepare", monkeypatch)
    # then
    message = capsys.readouterr().err
    assert code == 1
    assert message.startswith("error: ")
    assert "remedy:" in message
    for word in words:
        assert word in message
    assert contents(*OUTPUTS) == before
    assert not Path(".work").exists()


def test_the_command_line_ends_without_a_traceback(workspace: Path) -> None:
    # given nothing
    write_task(workspace, SERIES)
    # when
    done = subprocess.run([sys.executable, "-m", "stages.prepare"], capture_output=True, text=True, check=False)
    # then
    assert done.returncode == 1
    assert done.stderr.startswith("error: data/validated: there is no data set")
    assert "Traceback" not in done.stderr
