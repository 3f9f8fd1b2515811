"""reports/gate.json as the stages after the gate read it: whole, or refused by the field at fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import StageError
from stages.core.files import write_json
from stages.report.verdict import Check, TargetVerdict, Verdict, as_json, read_verdict

CHECK = Check(name="accuracy", target="onnx-fp32", value=0.9, operator=">=", threshold=0.8, passed=True, reason="")
VERDICT = Verdict(
    passed=True,
    checks=[CHECK],
    targets={"onnx-fp32": TargetVerdict(passed=True, required=True, sha256="0" * 64, failed=[])},
    notes=["few groups"],
    inputs={"reports/quality.json": "1" * 64},
    parameters="2" * 64,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "gate.json", as_json("digits", VERDICT))

    name, verdict = read_verdict(tmp_path / "gate.json")

    assert name == "digits"
    assert as_json(name, verdict) == as_json("digits", VERDICT)


def target(**changes: Any) -> dict[str, Any]:
    return {"targets": {"onnx-fp32": VERDICT.targets["onnx-fp32"].model_dump() | changes}}


def check(**changes: Any) -> dict[str, Any]:
    return {"checks": [CHECK.model_dump() | changes]}


@pytest.mark.parametrize(
    ("change", "where", "found", "expected"),
    [
        ({"name": 3}, "name", "found 3", "string"),
        ({"passed": "yes"}, "passed", "found 'yes'", "boolean"),
        ({"passed": 1}, "passed", "found 1", "boolean"),
        ({"checks": {}}, "checks", "found {}", "list"),
        ({"checks": [3]}, "checks.0", "found 3", "dictionary"),
        (check(reason=None), "checks.0.reason", "found None", "string"),
        (check(weight=1), "checks.0.weight", "found 1", "not permitted"),
        ({"targets": []}, "targets", "found []", "dictionary"),
        (target(sha256=3), "targets.onnx-fp32.sha256", "found 3", "string"),
        (target(failed=["accuracy"]), "targets.onnx-fp32", "found {", "`failed` names no check"),
        (target(passed=False), "targets.onnx-fp32", "found {", "`failed` names no check"),
        ({"notes": [3]}, "notes.0", "found 3", "string"),
        ({"inputs": {"reports/quality.json": 3}}, "inputs.reports/quality.json", "found 3", "string"),
        ({"parameters": None}, "parameters", "found None", "string"),
        (target(passed=False, failed=["size_kb"]), "passed", "found true, although onnx-fp32 failed", "false"),
    ],
)
def test_a_field_that_does_not_fit_is_named(
    change: dict[str, Any], where: str, found: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "gate.json"
    path.write_text(json.dumps(as_json("digits", VERDICT) | change))

    with pytest.raises(StageError) as error:
        read_verdict(path)

    assert error.value.where == f"{path}: {where}"
    assert found in error.value.found
    assert expected in error.value.expected
    assert error.value.remedy == "run the `gate` stage again (make repro)"


@pytest.mark.parametrize("field", ["name", "passed", "checks", "targets", "notes", "inputs", "parameters"])
def test_a_field_that_is_missing_is_named(field: str, tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    path.write_text(json.dumps({key: value for key, value in as_json("digits", VERDICT).items() if key != field}))

    with pytest.raises(StageError, match=rf"gate\.json: {field}: found nothing"):
        read_verdict(path)
