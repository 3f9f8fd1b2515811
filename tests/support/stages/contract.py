"""A user-written task for tests, a pump with two sensors, and rows for it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.support.paths import REPOSITORY

START = datetime(2026, 10, 1, tzinfo=UTC)
SNAPSHOT = "2026-11-01T00:00:00Z"

SERIES: dict[str, Any] = {
    "data": {
        "kind": "series",
        "group": "run",
        "time": "time",
        "label": "state",
        "classes": {"ok": "normal", "leak": "leak"},
        "channels": {"pressure": {"unit": "bar"}, "flow": {"unit": "l/min"}},
        "image": None,
        "audio": None,
    },
    "validate": {
        "extra_columns": "forbid",
        "columns": {
            "run": {"type": "string", "nullable": False},
            "time": {"type": "timestamp", "nullable": False},
            "state": {"type": "string", "nullable": False},
            "pressure": {"type": "float", "nullable": True, "minimum": 0, "maximum": 10},
            "flow": {"type": "float", "nullable": True, "minimum": 0, "maximum": 100},
        },
        "redundant": [],
        "plausibility": [
            {"name": "flow needs pressure", "terms": {"flow": 1.0, "pressure": -20.0}, "minimum": None, "maximum": 50}
        ],
        "sampling": {"interval_s": 1.0, "tolerance_s": 0.1},
        "freshness": {"column": "time", "max_age_s": 90 * 86400.0},
        "quarantine_share": 0.05,
        "thresholds": {"completeness": 0.9, "consistency": 0.9, "accuracy": 0.9, "timeliness": 0.9, "validity": 0.9},
    },
    "prepare": {
        "missing": "interpolate",
        "scaling": "standardise",
        "features": None,
        "window": {"length": 8, "stride": 4, "max_gap_s": 2.5, "label": "majority"},
        "split": {"method": "group", "validation": 0.2, "test": 0.2},
        "drift": {"bins": 5, "samples": 1000},
    },
}
SUITE = {
    "name": "bench",
    "expectations": [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "rows", "min_value": 100}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "groups", "min_value": 3}},
    ],
}
IMAGES: dict[str, Any] = {
    "data": {
        "kind": "image",
        "group": "camera",
        "time": None,
        "label": "sign",
        "classes": {"a": "a", "b": "b"},
        "channels": {"red": {"unit": "1/255"}, "green": {"unit": "1/255"}},
        "image": {"height": 2, "width": 3},
        "audio": None,
    },
    "validate": {
        "extra_columns": "forbid",
        "columns": {
            "values": {"type": "values", "nullable": False, "minimum": 0, "maximum": 255},
            "camera": {"type": "string", "nullable": False},
            "sign": {"type": "string", "nullable": False},
        },
        "redundant": [],
        "plausibility": [{"name": "lit", "terms": {"values.mean": 1.0}, "minimum": 1, "maximum": None}],
        "sampling": None,
        "freshness": None,
        "quarantine_share": 0.05,
        "thresholds": {"completeness": 0.9, "consistency": 0.9, "accuracy": 0.9, "timeliness": 0.0, "validity": 0.9},
    },
    "prepare": SERIES["prepare"] | {"missing": "drop", "scaling": "normalise", "window": None},
}


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


def write_task(root: Path, blocks: dict[str, Any], changes: dict[str, Any] | None = None, **shared: Any) -> None:
    """Write tasks/bench/ and a params.yaml that selects it. `changes`: dotted path -> value, in the task's file."""
    task = yaml.safe_load((REPOSITORY / "tasks/digits/params.yaml").read_text(encoding="utf-8"))
    task |= json.loads(json.dumps(blocks)) | {"name": "bench"}
    task["collect"]["snapshot"] = SNAPSHOT
    task["collect"]["sources"] = {"rig": next(iter(task["collect"]["sources"].values()))}
    common = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    common["task"] = "bench"
    for place, changed in ((task, changes or {}), (common, shared)):
        for dotted, value in changed.items():
            *path, last = dotted.replace("__", ".").split(".")
            node = place
            for name in path:
                node = node[int(name) if isinstance(node, list) else name]
            node[last] = value
    folder = root / "tasks" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    (folder / "expectations.json").write_text(json.dumps(SUITE), encoding="utf-8")
    (root / "params.yaml").write_text(yaml.safe_dump(common, sort_keys=False), encoding="utf-8")


def series_rows(runs: int = 10, rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Return runs of one row per second; each leaks in its second half, where the pressure falls."""
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(runs):
        leak = np.arange(rows) >= rows // 2
        times = pd.date_range(START.replace(tzinfo=None), periods=rows, freq="s") + pd.Timedelta(hours=number)
        frames.append(
            pd.DataFrame(
                {
                    "run": f"run-{number:02d}",
                    "time": times.astype("datetime64[us]"),
                    "state": np.where(leak, "leak", "ok"),
                    "pressure": np.where(leak, 3.0, 5.0) + rng.normal(0, 0.2, rows),
                    "flow": 30 + rng.normal(0, 2, rows),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def image_rows(cameras: int = 8, images: int = 6, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = cameras * images
    return pd.DataFrame(
        {
            "values": [rng.uniform(1, 255, 12).astype(np.float32) for _ in range(n)],
            "camera": [f"camera-{i // images}" for i in range(n)],
            "sign": ["ab"[i % 2] for i in range(n)],
        }
    )


def write_rows(
    root: Path, rows: pd.DataFrame, folder: str = "data/snapshot", source: str = "rig", part: int = 0
) -> Path:
    """Write a parquet file of one source and return its path."""
    path = root / folder / source / f"part-{part:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path)
    return path


def clip_rows(takes: int = 10) -> pd.DataFrame:
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


def holes() -> pd.DataFrame:
    """Return `series_rows` with missing values and one timestamp off the grid."""
    rows = series_rows()
    rows.loc[[10, 11], "flow"] = np.nan  # between two values
    rows.loc[[60, 61], "flow"] = np.nan  # at the beginning of a run
    rows.loc[[599], "flow"] = np.nan  # at the end of one
    rows.loc[12, "time"] += pd.Timedelta(milliseconds=500)
    return rows
