"""Parameters are read from two files and located in messages; every stage refuses invalid ones."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.core.errors import ParameterError
from stages.params import Shared, load, locate_parameter
from tests.support.paths import REPOSITORY
from tests.support.stages.bench import call_stage
from tests.support.stages.params import SHARED, TASK, change, leaves

TASKS = sorted(path.parent.name for path in (REPOSITORY / "tasks").glob("*/params.yaml"))


@pytest.mark.parametrize("task", TASKS)
def test_every_parameter_of_every_task_is_loaded(workspace: Path, task: str) -> None:
    """Every value of the files is in the typed object unchanged, and the object has no other values."""
    change(workspace / SHARED, "task", task)
    written = yaml.safe_load((workspace / "params.yaml").read_text()) | yaml.safe_load(
        (workspace / "tasks" / task / "params.yaml").read_text()
    )

    params = load()

    read = params.model_dump(mode="json", by_alias=True)
    values = dict(leaves(read))
    in_files = dict(leaves(written))
    assert {field: values[field] for field in in_files} == in_files
    assert all(values[field] in (None, False) for field in values.keys() - in_files.keys())  # an optional one, left out
    assert set(read) == {field.alias or name for name, field in type(params).model_fields.items()}


@pytest.mark.parametrize("task", TASKS)
def test_a_parameter_is_located_by_file_and_name(workspace: Path, task: str) -> None:
    change(workspace / SHARED, "task", task)

    for field in Shared.model_fields:
        assert locate_parameter(field) == f"params.yaml: {field}"
    assert locate_parameter("train.batch_size") == f"tasks/{task}/params.yaml: train.batch_size"


def test_messages_name_only_files_that_exist() -> None:
    for path in sorted((REPOSITORY / "stages").rglob("*.py")):
        messages = [
            line
            for line in path.read_text().splitlines()
            if re.search(r"""["'](params: |[^"']*tasks/<task>/params)""", line)
        ]
        assert [line for line in messages if '"""' not in line] == [], path


@pytest.mark.parametrize("stage", ["validate", "prepare", "gate"])
@pytest.mark.parametrize(
    ("name", "field", "value"),
    [(SHARED, "task", "../digits"), (SHARED, "seed", -1), (TASK, "gate.metrics.accuracy", float("nan"))],
)
def test_a_stage_that_refuses_keeps_earlier_outputs(
    workspace: Path,
    stage: str,
    name: str,
    field: str,
    value: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # given what an earlier run wrote
    outputs = [Path("data/prepared/spec.json"), Path("data/validated/rows.parquet"), Path("reports/gate.json")]
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(f"earlier {output}")
    change(workspace / name, field, value)
    before = contents(workspace)
    # when
    code = call_stage(stage, monkeypatch)
    # then
    message = capsys.readouterr().err
    assert code == 1
    assert message.startswith(f"error: {name}: 1 error(s)\n  {field}: found {value!r} ")
    assert "remedy: " in message
    assert contents(workspace) == before


def contents(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_outside_the_repository_the_message_names_the_right_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(
        ParameterError, match=r"params\.yaml: there is no such file\n.*\n.*run from the root of the repository"
    ):
        load()


def test_a_file_is_read_once(workspace: Path) -> None:
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)

    load()

    assert [name for name in opened if name.endswith("params.yaml")] == [SHARED, TASK]
