"""validate: valid rows are passed on, others are quarantined with the reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from stages.core.files import read_json
from tests.support.requirements import need_program
from tests.support.stages.bench import Bench, contents
from tests.support.stages.contract import IMAGES, SERIES, image_rows, series_rows

pytestmark = pytest.mark.slow

OUTPUTS = ("data/validated", "data/quarantine", "reports")


def test_clean_rows_pass_completely_and_in_order(bench: Bench) -> None:
    # given
    bench.task(SERIES)
    rows = series_rows()
    bench.collected(rows)
    # when
    code = bench.run("validate")
    # then
    assert code == 0
    kept = pq.read_table("data/validated/rig/part-00000.parquet").to_pandas()
    pd.testing.assert_frame_equal(kept.drop(columns="source"), rows, check_dtype=False)
    assert set(kept["source"]) == {"rig"}
    assert pq.read_table("data/quarantine/rig/part-00000.parquet").num_rows == 0
    quality = read_json(Path("reports/quality.json"))
    assert {m: q["value"] for m, q in quality["overall"].items()} == dict.fromkeys(quality["overall"], 1.0)
    assert quality["columns"]["rig"]["flow"]["mean"] == pytest.approx(rows["flow"].mean(), rel=1e-6)


def test_rows_that_violate_the_contract_are_quarantined_with_every_reason(bench: Bench) -> None:
    # given one row of each fault, and one with two
    rows = series_rows()
    rows.loc[3, "pressure"] = 11.0
    rows.loc[5, "flow"] = np.inf
    rows.loc[7, "state"] = "burst"
    rows.loc[9, ["pressure", "flow"]] = [0.1, 99.0]
    rows.loc[11, "time"] = pd.Timestamp("2026-12-01")
    rows.loc[13, ["pressure", "state"]] = [11.0, "burst"]
    rows.loc[15, "state"] = None
    rows = pd.concat([rows, rows.iloc[[20]]], ignore_index=True)
    bench.task(SERIES)
    bench.collected(rows)
    # when
    code = bench.run("validate")
    # then
    assert code == 0
    bad = pq.read_table("data/quarantine/rig/part-00000.parquet").to_pandas()
    assert sorted(bad["reason"]) == [
        "duplicate of another row (run, time)",
        "flow: infinite; flow: outside 0..100; not plausible: flow needs pressure",
        "not plausible: flow needs pressure",
        "pressure: outside 0..10",
        "state: missing",
        "state: unknown label",
        "state: unknown label; pressure: outside 0..10",
        "time: not between 2026-08-03T00:00:00 and the snapshot's time 2026-11-01T00:00:00",
    ]
    kept = pq.read_table("data/validated/rig/part-00000.parquet")
    assert len(kept) + len(bad) == len(rows)
    quality = read_json(Path("reports/quality.json"))
    assert quality["quarantine"]["rows"] == 8
    assert quality["quarantine"]["reasons"]["state: unknown label"] == 2
    assert quality["sources"]["rig"]["validity"]["value"] == pytest.approx(1 - 4 / len(rows))


@pytest.mark.parametrize("engine", ["duckdb", pytest.param("pyspark", marks=pytest.mark.exhaustive)])
def test_a_word_among_numbers_quarantines_only_its_row(bench: Bench, engine: str) -> None:
    # given columns that are text, because a few cells are not numbers or times
    if engine == "pyspark":
        need_program("java", "default-jre-headless")
    rows = series_rows()
    text = rows.assign(flow=rows["flow"].map(repr), time=rows["time"].astype(str), serial=[" 7", "8.0"] * 300)
    text.loc[3, "flow"] = "hot"
    text.loc[5, "time"] = "2026-13-45 00:00:00"
    text.loc[7, "serial"] = "7.5"
    text.loc[9, "flow"] = None
    text.loc[11, "flow"] = "inf"
    columns = SERIES["validate"]["columns"] | {"serial": {"type": "integer", "nullable": False}}
    bench.task(SERIES, {"validate.columns": columns}, compute__backend=engine)
    bench.collected(text)
    # when
    assert bench.run("validate") == 0
    # then
    bad = pq.read_table("data/quarantine/rig/part-00000.parquet").to_pandas()
    assert sorted(bad["reason"]) == [
        "flow: not a number (found 'hot')",
        "flow: not a number (found 'inf')",
        "serial: not a whole number (found '7.5')",
        "time: not a time (found '2026-13-45 00:00:00')",
    ]
    kept = pq.read_table("data/validated/rig/part-00000.parquet").to_pandas()
    expected = rows.drop(index=[3, 5, 7, 11]).reset_index(drop=True)
    expected.loc[expected["time"] == rows.loc[9, "time"], "flow"] = np.nan
    pd.testing.assert_frame_equal(kept[expected.columns], expected, check_dtype=False, check_exact=True)
    assert list(kept["serial"][:2]) == [7, 8]


def test_redundant_columns_must_agree_within_their_tolerance(bench: Bench) -> None:
    # given a second flow meter and a second name of the run, each off in one row
    rows = series_rows()
    rows = rows.assign(flow_2=rows["flow"] + 0.4, run_name=rows["run"])
    rows.loc[3, "flow_2"] += 0.2
    rows.loc[5, "run_name"] = "run-99"
    rows.loc[7, "flow_2"] = np.nan
    columns = SERIES["validate"]["columns"] | {
        "flow_2": {"type": "float", "nullable": True},
        "run_name": {"type": "string", "nullable": False},
    }
    redundant = [
        {"columns": ["flow", "flow_2"], "tolerance": 0.5},
        {"columns": ["run", "run_name"], "tolerance": 0.0},
    ]
    bench.task(SERIES, {"validate.columns": columns, "validate.redundant": redundant})
    bench.collected(rows)
    # when
    assert bench.run("validate") == 0
    # then
    bad = pq.read_table("data/quarantine/rig/part-00000.parquet").to_pandas()
    assert sorted(bad["reason"]) == ["flow and flow_2 disagree", "run and run_name disagree"]
    result = read_json(Path("reports/quality.json"))["overall"]["consistency"]
    assert result["value"] == pytest.approx(599 / 600)
    assert result["worst_columns"] == ["flow and flow_2 disagree (0.2%)", "run and run_name disagree (0.2%)"]


def test_an_incomplete_sample_is_quarantined(bench: Bench) -> None:
    # given images with a hole, of a wrong size, too bright, dark, twice, and missing
    rows = pd.concat([image_rows(30), image_rows(1).iloc[[0]]], ignore_index=True)
    values = list(rows["values"])
    values[1] = np.array([*values[1][:11], np.nan], dtype=np.float32)
    values[2] = values[2][:6]
    values[3] = values[3] + np.float32(200)
    values[4] = values[4] * 0
    values[5] = None
    rows["values"] = values
    bench.task(IMAGES)
    bench.collected(rows)
    # when
    assert bench.run("validate") == 0
    # then
    bad = pq.read_table("data/quarantine/rig/part-00000.parquet").to_pandas()
    assert sorted(bad["reason"]) == [
        "duplicate of another row (values)",
        "not plausible: lit",
        "values: missing or incomplete",
        "values: missing or incomplete",
        "values: not 12 values",
        "values: outside 0..255",
    ]


def test_the_same_snapshot_gives_the_same_bytes(bench: Bench) -> None:
    # given rows to keep and rows to quarantine
    rows = series_rows()
    rows.loc[3, "pressure"] = 11.0
    bench.task(SERIES)
    bench.collected(rows)
    assert bench.run("validate") == 0
    first = contents(*OUTPUTS)
    # when the whole stage runs again on rows that are stored in smaller pieces
    bench.collected(rows.iloc[:200])
    bench.collected(rows.iloc[200:], part=1)
    assert bench.run("validate") == 0
    # then
    assert contents(*OUTPUTS) == first
    pages = [text.decode() for name, text in first.items() if name.endswith(".html")]
    assert pages
    assert not any(str(bench.root) in page or "great-expectations-web-assets" in page for page in pages)


def test_extra_columns_can_be_dropped(bench: Bench) -> None:
    # given
    bench.task(SERIES, {"validate.extra_columns": "drop"})
    bench.collected(series_rows().assign(colour="red"))
    # when, then
    assert bench.run("validate") == 0
    assert "colour" not in pq.read_schema("data/validated/rig/part-00000.parquet").names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (lambda rows: rows.assign(state=["burst"] * 4 + list(rows["state"][4:])), 0),
        (lambda rows: rows.assign(state="burst"), 1),
        (lambda rows: rows.assign(flow=Decimal("1.5")), 1),
    ],
    ids=["a few rows", "every row", "another type"],
)
def test_messages_do_not_come_from_a_library(
    bench: Bench, bad: Callable[[pd.DataFrame], pd.DataFrame], code: int
) -> None:
    # given rows of which pandera reports failure cases
    bench.task(SERIES)
    bench.collected(bad(series_rows()))
    # when
    done = subprocess.run([sys.executable, "-m", "stages.validate"], capture_output=True, text=True, check=False)
    # then
    assert done.returncode == code, done.stderr
    assert "nanobind" not in done.stderr


def test_a_time_after_the_snapshot_causes_a_warning(bench: Bench) -> None:
    # given a clock that was off, and no rule on freshness
    rows = series_rows()
    rows["time"] = rows["time"].astype("datetime64[us]")
    rows.loc[[598, 599], "time"] = [pd.Timestamp("2026-12-01").as_unit("us"), pd.Timestamp("9999-12-31").as_unit("us")]
    bench.task(SERIES, {"validate.freshness": None, "validate.thresholds.timeliness": 0.0})
    bench.collected(rows)
    # when
    assert bench.run("validate") == 0
    # then
    message = bench.capsys.readouterr().out
    assert "warning: source rig: 2 row(s) have a time after the snapshot" in message
    assert "the latest is 9999-12-31 00:00:00; validate.freshness" in message
