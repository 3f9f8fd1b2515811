"""prepare: missing values, filled within their group or from the training split, or dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.core.files import read_json
from tests.support.stages.bench import Bench, read_prepared
from tests.support.stages.contract import SERIES, holes


def test_interpolation_is_linear_in_time_within_a_group(bench: Bench) -> None:
    # given
    rows = holes()
    bench.task(SERIES, {"prepare.missing": "interpolate"})
    bench.validated(rows)
    # when
    assert bench.run("prepare") == 0
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
def test_constants_come_from_the_training_split(method: str, bench: Bench) -> None:
    # given
    rows = holes()
    bench.task(SERIES, {"prepare.missing": method})
    bench.validated(rows)
    # when
    assert bench.run("prepare") == 0
    # then
    train = rows[rows["run"].isin(np.unique(read_prepared()[1]["train"].group))]
    flow = _flow_by_row(rows)
    assert flow[[10, 11, 60, 61, 599]] == pytest.approx([train["flow"].agg(method)] * 5, rel=1e-6)
    assert read_json(Path("reports/balance.json"))["missing"] == {
        "method": method,
        "values": {"flow": 5},
        "rows_dropped": 0,
    }


def test_rows_with_holes_can_be_dropped(bench: Bench) -> None:
    # given
    rows = holes()
    bench.task(SERIES, {"prepare.missing": "drop"})
    bench.validated(rows)
    # when
    assert bench.run("prepare") == 0
    # then
    assert sum(len(split.x) for split in read_prepared()[1].values()) == 595
    assert read_json(Path("reports/balance.json"))["missing"]["rows_dropped"] == 5


def _flow_by_row(rows: pd.DataFrame) -> np.ndarray:
    """The prepared flow of every row, in the order of `rows`: runs and times are ascending there."""
    flow = np.full(len(rows), np.nan)
    for split in read_prepared()[1].values():
        mine = rows.index[rows["run"].isin(np.unique(split.group))]
        flow[mine] = split.x[:, 1]
    return flow
