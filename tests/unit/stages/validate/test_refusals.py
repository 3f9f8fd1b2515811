"""validate: data that violates the contract is refused with every fault, and earlier outputs are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.support.stages.bench import Bench
from tests.support.stages.contract import SERIES, series_rows

pytestmark = pytest.mark.slow

OUTPUTS = ("data/validated", "data/quarantine", "reports")


def _drop(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="flow")


def _rename_all(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(colour="red")


def _words(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(flow=["broken", *["hot"] * (len(rows) - 1)])


def _some_words(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(flow=[*rows["flow"].astype(str)[:-40], "a", "b", "c", *["hot"] * 37])


BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], list[str]]] = {
    "missing column": (_drop, ["source rig, column flow", "missing", "a column with this name"]),
    "extra column": (_rename_all, ["source rig, column colour", "extra_columns: drop"]),
    "wrong type": (_words, ["source rig, column flow", "found type string, such as 'broken', 'hot'", "type float"]),
    "words among numbers": (
        _some_words,
        [
            "40 row(s): flow: not a number; found 'a', 'b', 'c'; first in source rig, run run-09, time 2026-10-01",
            "the rows with their reasons are in .work/refused/",
        ],
    ),
    "all-null column": (lambda r: r.assign(flow=np.nan), ["source rig, column flow", "missing in all 600 rows"]),
    "constant column": (
        lambda r: r.assign(flow=7.0),
        ["column flow", "its value is 7 in every row", "remove the channel"],
    ),
    "duplicate rows": (
        lambda r: pd.concat([r, r.iloc[:200]]),
        ["overall", "consistency", "0.7500", "duplicate of another row (run, time) (25.0%)"],
    ),
    "unsorted times": (lambda r: r.iloc[::-1], ["consistency", "0.0000", "time: not in order (100.0%)"]),
    "unseen label": (
        lambda r: r.assign(state=r["state"].replace("leak", "burst")),
        [
            "validity",
            "0.5000",
            "state: unknown label (50.0%)",
            "300 row(s): state: unknown label; found 'burst' (known labels: ok, leak); first in source rig, run run-00",
        ],
    ),
    "a few unseen labels": (
        lambda r: r.assign(state=["burst"] * 40 + list(r["state"][40:])),
        ["40 rows (6.67%) would go to quarantine", "at most 5.00%"],
    ),
    "one class only": (lambda r: r.assign(state="ok"), ["column state", "only the class 'ok'", "at least two"]),
    "empty data set": (lambda r: r.iloc[:0], ["source rig", "it has no rows"]),
    "NaN": (
        lambda r: r.assign(flow=[np.nan] * 400 + list(r["flow"][400:])),
        ["completeness", "0.8667", "flow (66.7%)"],
    ),
    "infinity": (lambda r: r.assign(flow=[np.inf] * 200 + list(r["flow"][200:])), ["validity", "flow: infinite"]),
    "stale rows": (
        lambda r: r.assign(time=r["time"] - pd.Timedelta(days=365)),
        ["timeliness", "0.0000", "0.9000", "time: not between"],
    ),
    "irregular steps": (
        lambda r: r[r.index % 4 != 0],
        ["consistency", "0.6818", "time: step is not 1 s +- 0.1 s (31.8%)"],
    ),
    "implausible": (
        lambda r: r.assign(pressure=r["pressure"] / 10, flow=r["flow"] + 38),
        ["accuracy", "not plausible: flow needs pressure"],
    ),
    "too few rows for the suite": (lambda r: r.iloc[:90], ["expectations.json: rows", "found rig: 90", "100"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_earlier_outputs_stay(name: str, bench: Bench) -> None:
    # given outputs of an earlier run, and a snapshot with one fault
    spoil, words = BAD[name]
    bench.task(SERIES)
    for folder in ("data/validated", "data/quarantine", "reports/data_docs"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "earlier").write_text("earlier", encoding="utf-8")
    Path("reports/quality.json").write_text("{}", encoding="utf-8")
    bench.collected(spoil(series_rows()))
    # when
    message = bench.refused("validate", keeps=OUTPUTS)
    # then
    assert "expected:" in message
    assert "remedy:" in message
    for word in words:
        assert word in message
    assert not list(Path(".work").glob("tables-*"))


def test_faults_of_all_columns_and_sources_are_reported_at_once(bench: Bench) -> None:
    # given two sources with two faults in one and one in the other
    bench.task(SERIES)
    task = bench.root / "tasks/bench/params.yaml"
    blocks = yaml.safe_load(task.read_text())
    blocks["collect"]["sources"]["yard"] = blocks["collect"]["sources"]["rig"]
    task.write_text(yaml.safe_dump(blocks, sort_keys=False), encoding="utf-8")
    bench.collected(series_rows().drop(columns="flow").assign(colour="red"))
    bench.collected(_words(series_rows()), source="yard")
    # when
    message = bench.refused("validate")
    # then
    for place in ("source rig, column flow", "source rig, column colour", "source yard, column flow"):
        assert place in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["there is no such file", "docs/reference/data-contract.md"]),
        ("{", ["not readable as JSON"]),
        ('{"name": "bench", "expectations": []}', ["or it has no expectations"]),
        (
            '{"name": "bench", "expectations": [{"type": "expect_good_data", "kwargs": {}}]}',
            ["expect_good_data", "a valid expectation of great-expectations"],
        ),
        (
            '{"name": "bench", "expectations": [{"type": "expect_column_values_to_be_between",'
            ' "kwargs": {"column": "mean.flou", "min_value": 1}}]}',
            ["expectations.json: mean.flou", "no such column of the profile", "mean.flow"],
        ),
    ],
)
def test_a_bad_suite_is_refused(text: str | None, words: list[str], bench: Bench) -> None:
    # given
    bench.task(SERIES)
    bench.collected(series_rows())
    suite = bench.root / "tasks/bench/expectations.json"
    suite.unlink() if text is None else suite.write_text(text, encoding="utf-8")
    # when
    message = bench.refused("validate")
    # then
    for word in words:
        assert word in message
    assert not Path("data/validated").exists()


def test_a_file_that_is_not_parquet_is_refused(bench: Bench) -> None:
    # given a snapshot that was cut off
    bench.task(SERIES)
    path = bench.collected(series_rows())
    path.write_bytes(path.read_bytes()[:1000])
    # when, then
    assert "not readable as parquet" in bench.refused("validate")


def test_refused_rows_are_kept_until_a_run_succeeds(bench: Bench) -> None:
    # given 40 unknown labels
    rows = series_rows()
    bench.task(SERIES)
    bench.collected(rows.assign(state=["burst"] * 40 + list(rows["state"][40:])))
    # when
    assert bench.run("validate") == 1
    # then
    bad = pd.read_parquet(".work/refused/rig/part-00000.parquet")
    assert set(bad["reason"]) == {"state: unknown label"} and set(bad["state"]) == {"burst"} and len(bad) == 40
    assert not Path("data/quarantine").exists()
    bench.collected(rows)
    assert bench.run("validate") == 0
    assert not Path(".work").exists()
