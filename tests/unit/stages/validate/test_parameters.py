"""The contract's parameters are consistent, or are refused with their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.core.errors import ParameterError
from stages.params import load
from stages.params.common import Data
from stages.params.validate import Validate
from stages.validate.parameters import check_parameters
from tests.support.paths import REPOSITORY
from tests.support.stages.contract import IMAGES, SERIES, write_task


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.label": "colour"}, "'colour' is used by `data` but not described"),
        ({"data.channels": {"pressure": {"unit": "bar"}, "heat": {"unit": "K"}}}, "'heat' is used by `data`"),
        ({"data.time": "when"}, "'when' is used by `data.time`"),
        (
            {"validate.redundant": [{"columns": ["flow", "flow_2"], "tolerance": 0.1}]},
            "'flow_2' is used by `validate.redundant`",
        ),
        (
            {"validate.plausibility": [{"name": "x", "terms": {"flew": 1.0}, "minimum": 0, "maximum": None}]},
            "'flew' is used by `validate.plausibility`",
        ),
        (
            {"validate.plausibility": [{"name": "x", "terms": {"flow.mean": 1.0}, "minimum": 0, "maximum": None}]},
            "the term 'flow.mean' of `validate.plausibility` is not numeric",
        ),
        (
            {"validate.plausibility": [{"name": "x", "terms": {"run": 1.0}, "minimum": 0, "maximum": None}]},
            "the term 'run'",
        ),
        (
            {"validate.redundant": [{"columns": ["flow", "run"], "tolerance": 0.1}]},
            "flow and run have types that cannot be compared",
        ),
        ({"validate.freshness.column": "stamp"}, "'stamp' is used by `validate.freshness`"),
        ({"validate.freshness.column": "flow"}, "'flow' has type float"),
        ({"validate.columns.flow": {"type": "string", "nullable": True}}, "'flow' has type string"),
        ({"validate.columns.state": {"type": "string", "nullable": True}}, "'state' is nullable"),
        ({"validate.columns.source": {"type": "string", "nullable": True}}, "a column is called `source`"),
    ],
)
def test_inconsistent_parameters_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_task(tmp_path, SERIES, changes)
    params = load(tmp_path)
    with pytest.raises(ParameterError) as refused:
        check_parameters(params.data, params.validation)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("blocks", "changes", "words"),
    [
        (SERIES, {"validate.plausibility": []}, "a rule in `plausibility` if thresholds.accuracy"),
        (SERIES, {"validate.freshness": None}, "a block `freshness` if thresholds.timeliness"),
        (SERIES, {"validate.columns.run.minimum": 1}, "no minimum or maximum for type string"),
        (SERIES, {"validate.columns.flow.allowed": ["1"]}, "`allowed` only for type string"),
        (IMAGES, {"validate.columns.values.unique": True}, "no `unique` for type values"),
        (SERIES, {"validate.columns.flow.type": "number"}, "validate.columns.flow.type"),
        (SERIES, {"validate.plausibility.0.maximum": None}, "at least one bound"),
    ],
)
def test_an_invalid_contract_is_refused(
    blocks: dict[str, Any], changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    write_task(tmp_path, blocks, changes)
    with pytest.raises(ParameterError) as refused:
        load(tmp_path)
    assert words in str(refused.value)


def test_every_task_of_the_repository_is_consistent() -> None:
    for path in sorted((REPOSITORY / "tasks").glob("*/params.yaml")):
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
        data, contract = Data.model_validate(task["data"]), Validate.model_validate(task["validate"])
        check_parameters(data, contract)
        assert (path.parent / "expectations.json").exists()
