"""prepare names each class that has no sample in a split, with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.files import read_json
from tests.support.stages.bench import Bench
from tests.support.stages.contract import SERIES, series_rows

CLASSES = SERIES["data"]["classes"] | {"stuck": "jam"}


def prepared(bench: Bench, runs: list[str]) -> tuple[str, list[str]]:
    """Prepare rows in which these runs are jammed for a while; return the output and the warnings of the report."""
    rows = series_rows()
    rows.loc[rows["run"].isin(runs) & (rows.index % 60 < 20), "state"] = "stuck"
    bench.task(SERIES, {"data.classes": CLASSES})
    bench.validated(rows)
    assert bench.run("prepare") == 0
    report = read_json(Path("reports/balance.json"))
    return bench.capsys.readouterr().out, report.get("warnings", [])


def test_a_class_of_one_run_is_named_with_its_splits_its_counts_and_a_remedy(bench: Bench) -> None:
    output, warnings = prepared(bench, ["run-04"])

    (warning,) = warnings
    for words in ("class 'jam' has no sample in validation and test", "4 in train, 0 in validation, 0 in test",
                  "1 group(s) of 'run' (run-04)", "collect the class in more groups"):  # fmt: skip
        assert words in warning
    assert f"warning: {warning}" in output
    assert "jam 0" in output


@pytest.mark.parametrize("runs", [[f"run-{i:02d}" for i in range(10)]])
def test_there_is_no_warning_if_every_split_has_every_class(bench: Bench, runs: list[str]) -> None:
    output, warnings = prepared(bench, runs)

    assert warnings == []
    assert "warning" not in output
