"""prepare: what cannot be split, filled or scaled is refused by name, and earlier outputs stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support.stages.bench import PREPARED, Bench
from tests.support.stages.contract import CLIPS, IMAGES, SERIES, clip_rows, image_rows, series_rows

OUTPUTS = ("data/prepared", "data/drift_reference.json", "reports")

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
        ["split train: no sample of class 'b' (4 in other splits)", "remove the class"],
    ),
    "constant channel": (
        SERIES,
        {},
        lambda r: r.assign(flow=4.0),
        ["channel flow: its value is 4 in the whole", "remove the channel"],
    ),
    "no rows": (SERIES, {}, lambda r: r.iloc[:0], ["data/validated: no rows remain", "run python -m stages.validate"]),
    "holes in every row": (
        SERIES,
        {"prepare.missing": "drop"},
        lambda r: r.assign(flow=np.nan),
        ["data/validated: no rows remain; 600 were dropped because of missing values", "prepare.missing"],
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
        ["2 group(s), such as 'ann', are partly inside and partly outside", "validation_by: row"],
    ),
    "a window for images": (
        IMAGES,
        {"prepare.window": SERIES["prepare"]["window"]},
        None,
        ["prepare.window", "null for image and audio"],
    ),
    "features for images": (IMAGES, {"prepare.features": CLIPS["prepare"]["features"]}, None, ["prepare.features"]),
    "a frame longer than a clip": (CLIPS, {"prepare.features.frame": 11}, None, ["features.frame", "at most", "10"]),
    "interpolated images": (IMAGES, {"prepare.missing": "mean"}, None, ["prepare.missing", "samples must be complete"]),
    "rows of a series split at random": (
        SERIES,
        {"prepare.split": CLIPS["prepare"]["split"]},
        None,
        ["split.validation_by", "too similar"],
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
        ["so that some samples remain for training"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_earlier_outputs_stay(name: str, bench: Bench) -> None:
    # given outputs of an earlier run, and one fault
    blocks, changes, spoil, words = BAD[name]
    bench.task(blocks, changes)
    rows = {"series": series_rows, "image": image_rows, "audio": clip_rows}[blocks["data"]["kind"]]()
    bench.validated(spoil(rows) if spoil else rows)
    PREPARED.mkdir()
    (PREPARED / "earlier").write_text("earlier", encoding="utf-8")
    # when
    message = bench.refused("prepare", keeps=OUTPUTS)
    # then
    assert "remedy:" in message
    for word in words:
        assert word in message
    assert not Path(".work").exists()
