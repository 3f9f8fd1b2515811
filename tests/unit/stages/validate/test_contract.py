"""Columns are converted to the contract's types, and rules are checked for every row."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.params.common import Compute, Data
from stages.params.validate import Validate
from stages.tables.engine import Engine
from stages.validate import contract as contracts
from stages.validate.flagged_rows import flag_violations
from stages.validate.row_rules import build_rules
from tests.support.stages.contract import SERIES, START

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.chdir(tmp_path)
    with Engine(Compute(backend="duckdb", memory_limit="500MB", spark_master="local[1]")) as engine:
        yield engine


def _contract(columns: dict[str, dict[str, Any]], **changes: Any) -> Validate:
    base = {name: SERIES["validate"]["columns"][name] for name in ("run", "time", "state")}
    blocks = SERIES["validate"] | {"columns": base | columns, "plausibility": [], "freshness": None, "sampling": None}
    zero = dict.fromkeys(SERIES["validate"]["thresholds"], 0.0)
    return Validate.model_validate(blocks | {"thresholds": zero} | changes)


def _data(*channels: str) -> Data:
    return Data.model_validate(SERIES["data"] | {"channels": {name: {"unit": "V"} for name in channels}})


def _reasons(engine: Engine, contract: Validate, data: Data, **columns: Any) -> list[str | None]:
    """Return the reason of each row, None for a valid one; rows are one second apart."""
    n = len(next(iter(columns.values())))
    table = pa.table(
        {
            "run": ["a"] * n,
            "time": pa.array([START.timestamp() * 1e6 + i * 1_000_000 for i in range(n)], pa.int64()).cast(
                pa.timestamp("us")
            ),
            "state": ["ok"] * n,
            **columns,
        }
    )
    Path("in").mkdir(exist_ok=True)
    pq.write_table(table, "in/part-00000.parquet")
    rows = contracts.to_canonical_types(engine.read([Path("in/part-00000.parquet")]), contract)
    bad = flag_violations(rows, build_rules(data, contract, NOON)).invalid_rows()
    result = {row["time"]: row["reason"] for row in bad.to_pyarrow().to_pylist()}
    return [result.get(moment) for moment in table["time"].to_pylist()]


def test_floats(engine: Engine) -> None:
    # given bounds that are inclusive, and a column where nothing may be missing
    contract = _contract({"x": {"type": "float", "nullable": False, "minimum": 0, "maximum": 1}})
    # when, then
    values = [0.0, 1.0, -0.001, 1.001, np.nan, None, np.inf]
    assert _reasons(engine, contract, _data("x"), x=pa.array(values, pa.float64())) == [
        None,
        None,
        "x: outside 0..1",
        "x: outside 0..1",
        "x: missing",
        "x: missing",
        "x: infinite; x: outside 0..1",
    ]


def test_a_bound_may_be_open_and_a_value_missing(engine: Engine) -> None:
    contract = _contract({"x": {"type": "float", "nullable": True, "minimum": 0}})
    values = pa.array([np.nan, None, 1e300, -np.inf, -1.0], pa.float64())
    assert _reasons(engine, contract, _data("x"), x=values) == [
        None,
        None,
        None,
        "x: infinite; x: outside 0..inf",
        "x: outside 0..inf",
    ]


def test_narrow_types_are_widened(engine: Engine) -> None:
    # given whole numbers and 32-bit floats where the contract requires float, and a number for a name
    contract = _contract(
        {
            "x": {"type": "float", "nullable": True},
            "y": {"type": "float", "nullable": True},
            "n": {"type": "integer", "nullable": False, "maximum": 5},
            "name": {"type": "string", "nullable": False},
        }
    )
    reasons = _reasons(
        engine,
        contract,
        _data("x", "y"),
        x=pa.array([1, 2], pa.int32()),
        y=pa.array([0.5, 0.25], pa.float32()),
        n=pa.array([5, 6], pa.uint8()),
        name=pa.array([7, 8], pa.int64()),
    )
    assert reasons == [None, "n: outside -inf..5"]
    assert contracts.check_columns(engine.read([Path("in/part-00000.parquet")]), "s", contract) == []


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("float", pa.array([b"1.0"])),
        ("integer", pa.array([1.5])),
        ("string", pa.array([1.5])),
        ("timestamp", pa.array([1.5])),
        ("values", pa.array([1.5])),
        ("values", pa.array([["a"]])),
        ("float", pa.array([[1.0]])),
    ],
)
def test_another_type_is_a_fault_of_the_table(engine: Engine, kind: str, values: pa.Array) -> None:
    contract = _contract({"x": {"type": "float", "nullable": True}, "y": {"type": kind, "nullable": True}})
    pq.write_table(
        pa.table({"run": ["a"], "time": pa.array([0], pa.timestamp("us")), "state": ["ok"], "x": [1.0], "y": values}),
        "part.parquet",
    )
    (fault,) = contracts.check_columns(engine.read([Path("part.parquet")]), "s", contract)
    assert str(fault).startswith("source s, column y: found type ")
    assert f"expected: type {kind}" in str(fault)


def test_allowed_values_and_unique_ones(engine: Engine) -> None:
    contract = _contract(
        {
            "x": {"type": "float", "nullable": True},
            "site": {"type": "string", "nullable": True, "allowed": ["north", "south"]},
            "serial": {"type": "integer", "nullable": True, "unique": True},
        }
    )
    reasons = _reasons(
        engine,
        contract,
        _data("x"),
        x=[1.0] * 5,
        site=["north", "south", "west", None, "north"],
        serial=pa.array([1, 2, 3, None, 2], pa.int64()),
    )
    # of two rows with the same serial number, neither is known to be right
    assert reasons == [None, "serial: not unique", "site: not an allowed value", None, "serial: not unique"]


def test_plausibility_is_a_bounded_sum(engine: Engine) -> None:
    # given agreement with a reference within 0.5, which passes if either value is missing
    rule = {"name": "as the reference", "terms": {"x": 1.0, "ref": -1.0}, "minimum": -0.5, "maximum": 0.5}
    contract = _contract(
        {"x": {"type": "float", "nullable": True}, "ref": {"type": "float", "nullable": True}}, plausibility=[rule]
    )
    x, ref = pa.array([1.0, 1.0, 1.0, 1.0]), pa.array([1.5, 0.4, 1.6, None])
    bad = "not plausible: as the reference"
    assert _reasons(engine, contract, _data("x"), x=x, ref=ref) == [None, bad, bad, None]


def test_freshness_is_up_to_the_snapshot(engine: Engine) -> None:
    contract = _contract(
        {"x": {"type": "float", "nullable": True}, "seen": {"type": "timestamp", "nullable": True}},
        freshness={"column": "seen", "max_age_s": 3600.0},
    )
    # given times in another zone and of another unit
    seen = pd.Series(
        pd.to_datetime(
            ["2026-10-01 13:00:00", "2026-10-01 14:00:00", "2026-10-01 12:59:59", "2026-10-01 14:00:01", None]
        )
    ).dt.tz_localize("Europe/Berlin")
    bad = "seen: not between 2026-10-01T11:00:00 and the snapshot's time 2026-10-01T12:00:00"
    assert _reasons(engine, contract, _data("x"), x=[1.0] * 5, seen=pa.Array.from_pandas(seen)) == [
        None,
        None,
        bad,
        bad,
        None,
    ]


def test_without_violations_no_row_is_invalid(engine: Engine) -> None:
    pq.write_table(pa.table({"x": [1.0, 2.0]}), "part.parquet")
    flagged = flag_violations(engine.read([Path("part.parquet")]), [])
    assert flagged.valid_rows().count().to_pyarrow().as_py() == 2
    assert flagged.invalid_rows().to_pyarrow().to_pydict() == {"x": [], "reason": []}
    assert flagged.count().rows == 0
