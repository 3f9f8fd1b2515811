"""Labels and groups that are called NA, null or None stay words from the file to the prepared samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from stages.core.files import read_json
from tests.support.requirements import need_program
from tests.support.stages.bench import Bench, read_prepared
from tests.support.stages.contract import SERIES, series_rows

pytestmark = pytest.mark.slow

ENGINES = ["duckdb", pytest.param("pyspark", marks=pytest.mark.exhaustive)]
GROUPS = ["NA", "N/A", "null", "NULL", "None", "nan", "NaN", "no", "<NA>", "run-1"]


def need(engine: str) -> None:
    if engine == "pyspark":
        need_program("java", "default-jre-headless")


def source(path: str, **form: Any) -> dict[str, Any]:
    form = {"type": "csv", "separator": ",", "encoding": "utf-8", "columns": None} | form
    return {"rig": {"type": "cloud", "url": path, "files": {"select": ["*"], "path": None, "format": form}}}


@pytest.mark.parametrize("engine", ENGINES)
def test_label_na_is_a_word(bench: Bench, engine: str) -> None:
    need(engine)
    # given a label NA in ten of forty rows
    rng = np.random.default_rng(7)
    labels = ["ok" if i % 4 else "NA" for i in range(40)]
    times = pd.date_range("2026-03-01T06:00:00Z", periods=40, freq="s")
    lines = [f"{t.isoformat()},{rng.normal():.3f},m1,{label}\n" for t, label in zip(times, labels, strict=True)]
    (bench.root / "a.csv").write_text("t,v,machine,state\n" + "".join(lines))
    data = SERIES["data"] | {"group": "machine", "time": "t", "channels": {"v": {"unit": "g"}}}
    data["classes"] = {"NA": "not applicable", "ok": "ok"}
    columns = {
        "t": {"type": "timestamp", "nullable": False}, "v": {"type": "float", "nullable": True},
        "machine": {"type": "string", "nullable": False}, "state": {"type": "string", "nullable": False},
    }  # fmt: skip
    contract = SERIES["validate"] | {"columns": columns, "plausibility": [], "freshness": None}
    contract["thresholds"] = contract["thresholds"] | {"accuracy": 0.0, "timeliness": 0.0}
    blocks = SERIES | {"data": data, "validate": contract}
    bench.task(blocks, {"collect.sources": source("a.csv")}, compute__backend=engine)
    suite = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "rows", "min_value": 40}}
    Path("tasks/bench/expectations.json").write_text(json.dumps({"name": "bench", "expectations": [suite]}))
    # when
    codes = [bench.run("collect"), bench.run("validate")]
    # then
    assert codes == [0, 0], bench.capsys.readouterr().err
    kept = pq.read_table("data/validated/rig/part-00000.parquet")
    assert {label: kept["state"].to_pylist().count(label) for label in ("NA", "ok", None)} == {
        "NA": 10,
        "ok": 30,
        None: 0,
    }
    quality = read_json(Path("reports/quality.json"))
    assert quality["columns"]["rig"]["state"]["null_share"] == 0.0
    assert quality["overall"]["completeness"]["value"] == 1.0


@pytest.mark.parametrize("engine", ENGINES)
def test_groups_and_labels_are_words_in_every_stage(bench: Bench, engine: str) -> None:
    need(engine)
    # given runs and states with names that pandas would read as missing values
    rows = series_rows()
    rows["run"] = rows["run"].map(dict(zip(sorted(rows["run"].unique()), GROUPS, strict=True)))
    rows["state"] = rows["state"].map({"ok": "null", "leak": "NA"})
    rows.to_csv(bench.root / "rows.csv", index=False, na_rep="")
    classes = {"null": "None", "NA": "nan"}
    bench.task(SERIES, {"collect.sources": source("rows.csv"), "data.classes": classes}, compute__backend=engine)
    # when
    codes = [bench.run(stage) for stage in ("collect", "validate", "prepare")]
    # then
    assert codes == [0, 0, 0], bench.capsys.readouterr().err
    kept = pq.read_table("data/validated/rig/part-00000.parquet")
    assert kept["state"].to_pylist().count("NA") == kept["state"].to_pylist().count("null") == len(rows) // 2
    spec, splits = read_prepared()
    assert spec.classes == ["None", "nan"]
    assert {str(name) for split in splits.values() for name in np.unique(split.group)} == set(GROUPS)
    assert all(set(split.y) == {0, 1} for split in splits.values())


def test_a_word_among_numbers_is_quarantined_unless_it_is_a_missing_value(bench: Bench) -> None:
    # given the words NA and NaN in a column of numbers
    rows = series_rows()
    text = rows.assign(flow=rows["flow"].map(repr))
    text.loc[3, "flow"], text.loc[5, "flow"] = "NA", "NaN"
    text.to_csv(bench.root / "rows.csv", index=False, na_rep="")
    bench.task(SERIES, {"collect.sources": source("rows.csv")})
    # when
    assert [bench.run("collect"), bench.run("validate")] == [0, 0]
    # then
    bad = pq.read_table("data/quarantine/rig/part-00000.parquet")["reason"].to_pylist()
    assert sorted(bad) == ["flow: not a number (found 'NA')", "flow: not a number (found 'NaN')"]
    # when the parameters say that the words mean a missing value
    bench.task(SERIES, {"collect.sources": source("rows.csv", missing_values={"flow": ["NA", "NaN"]})})
    assert [bench.run("collect"), bench.run("validate")] == [0, 0]
    # then
    assert pq.read_table("data/quarantine/rig/part-00000.parquet").num_rows == 0
    assert pq.read_table("data/validated/rig/part-00000.parquet")["flow"].null_count == 2


def test_too_many_words_are_refused_with_the_parameter_to_change(bench: Bench) -> None:
    rows = series_rows()
    text = rows.assign(flow=rows["flow"].map(repr))
    text.loc[:99, "flow"] = "NA"
    text.to_csv(bench.root / "rows.csv", index=False, na_rep="")
    bench.task(SERIES, {"collect.sources": source("rows.csv")})
    assert bench.run("collect") == 0

    message = bench.refused("validate")
    assert "100 row(s): flow: not a number; found 'NA'" in message
    assert "if a word means a missing value, write it into `missing_values`" in message
