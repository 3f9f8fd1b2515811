"""The gate on real files: what it writes, and that what is missing, stale or damaged fails."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.core.files import sha256
from stages.gate import stage as gate
from tests.support.stages.built import change_report, edit, report


def verdict_of(root: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((root / "reports" / "gate.json").read_text())
    return value


def reasons(root: Path) -> str:
    return "\n".join(check["reason"] for check in verdict_of(root)["checks"])


def test_real_files_pass_and_every_output_is_written(built: Path) -> None:
    gate.main()

    judged = verdict_of(built)
    assert judged["passed"]
    assert set(judged["checks"][0]) == {"name", "target", "value", "operator", "threshold", "passed", "reason", "note"}
    assert judged["inputs"]["models/exported/onnx-fp32/model.onnx"] == judged["targets"]["onnx-fp32"]["sha256"]
    assert judged["inputs"]["models/trained/model.pt"] == sha256(built / "models/trained/model.pt")
    assert {path for path in judged["inputs"] if path.startswith("reports/")} == {
        "reports/quality.json", "reports/balance.json", "reports/train/summary.json", "reports/compress.json",
        "reports/evaluate/onnx-fp32/metrics.json", "reports/evaluate/onnx-fp32/predictions.csv",
        "reports/evaluate/onnx-int8/metrics.json", "reports/evaluate/onnx-int8/predictions.csv",
    }  # fmt: skip
    flat = json.loads((built / "reports" / "metrics.json").read_text())
    assert flat["onnx-fp32"]["accuracy"] == report(built, "onnx-fp32")["accuracy"]["value"]
    assert flat["onnx-fp32"]["size_kb"] == (built / "models/exported/onnx-fp32/model.onnx").stat().st_size / 1000
    assert flat["onnx-fp32"]["retention"] == 1.0
    assert (built / "reports" / "index.html").exists()


def test_a_report_of_another_file_is_stale(built: Path) -> None:
    change_report(built, "onnx-fp32", model_sha256="0" * 64)

    gate.main()

    assert "measured on a different file" in reasons(built)
    assert verdict_of(built)["targets"]["onnx-int8"]["passed"]


def test_a_file_exchanged_after_its_export_is_stale(built: Path) -> None:
    with (built / "models/exported/onnx-int8/model.onnx").open("ab") as stream:
        stream.write(b"\0")

    gate.main()

    assert "describes a different file" in reasons(built)


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("reports/evaluate/onnx-fp32/metrics.json", "metrics.json: there is no such file"),
        ("models/exported/onnx-fp32/model.onnx", "model.onnx is missing"),
        ("models/exported/onnx-fp32/export.json", "export.json: there is no such file"),
        ("reports/train/summary.json", "reports/train/summary.json: there is no such file"),
    ],
)
def test_what_is_missing_fails_and_the_page_is_there_to_look_at(built: Path, removed: str, message: str) -> None:
    (built / removed).unlink()

    gate.main()

    assert message in reasons(built)
    assert "did not pass" in (built / "reports" / "index.html").read_text()


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00\x01"])
def test_a_report_that_is_no_json_object_fails(built: Path, content: str) -> None:
    (built / "reports/evaluate/onnx-fp32/metrics.json").write_text(content)

    gate.main()

    assert "JSON" in reasons(built)


def test_nan_in_a_report_fails_and_gate_json_stays_json(built: Path) -> None:
    change_report(built, "onnx-fp32", accuracy={"value": math.nan, "low": math.nan, "high": math.nan})

    gate.main()

    text = (built / "reports" / "gate.json").read_text()
    assert "NaN" not in text.replace("'NaN' is not a finite number", "")
    assert "metrics.json: not readable as JSON: 'NaN' is not a finite number" in reasons(built)
    assert not verdict_of(built)["targets"]["onnx-fp32"]["passed"]


@pytest.mark.parametrize(("least", "passed"), [(0.85, True), (0.999, False)])
def test_the_command_records_each_verdict_and_its_numbers(built: Path, least: float, passed: bool) -> None:
    edit(built, lambda task: task["gate"]["metrics"].update(accuracy=least))

    done = subprocess.run([sys.executable, "-m", "stages.gate"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"gate: {'pass' if passed else 'FAIL'}" in done.stdout
    assert verdict_of(built)["passed"] is passed
    metrics = json.loads((built / "reports/metrics.json").read_text())
    assert metrics["passed"] is passed
    assert metrics["onnx-fp32"]["accuracy"] == report(built, "onnx-fp32")["accuracy"]["value"]


def test_the_verdict_does_not_hang_on_where_it_is_made(
    built: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    for name in ("params.yaml", "tasks"):
        (other / name).symlink_to(built / name)
    for name in ("models", "reports", "data"):
        subprocess.run(["cp", "-r", str(built / name), str(other / name)], check=True)

    gate.main()
    monkeypatch.chdir(other)
    gate.main()

    for name in ("gate.json", "metrics.json", "index.html"):
        assert (other / "reports" / name).read_bytes() == (built / "reports" / name).read_bytes()
