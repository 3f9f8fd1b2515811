"""The baseline of the page: the metrics of the previous build, or none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stages.gate import stage as gate
from stages.gate.previous import read_previous_metrics
from tests.support.stages.built import edit, record_gate, report


@pytest.fixture
def recorded(built: Path) -> Path:
    """A workspace whose gate has passed, and is in dvc.lock and DVC's cache."""
    gate.main()
    record_gate(built)
    return built


def test_the_recorded_metrics_are_read_after_dvc_removed_the_reports(recorded: Path) -> None:
    metrics = json.loads((recorded / "reports/metrics.json").read_text())
    shutil.rmtree(recorded / "reports")

    assert read_previous_metrics("digits") == {target: metrics[target] for target in ("onnx-fp32", "onnx-int8")}


def test_the_metrics_of_a_refused_build_are_a_baseline_too(built: Path) -> None:
    edit(built, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    gate.main()
    record_gate(built)

    before = read_previous_metrics("digits")

    assert before["onnx-fp32"]["accuracy"] == report(built, "onnx-fp32")["accuracy"]["value"]
    assert before["onnx-fp32"]["passed"] is False


def test_another_task_has_no_baseline(recorded: Path) -> None:
    assert read_previous_metrics("pump") == {}


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", "stages: 3", "stages: {gate: {outs: 3}}", "stages: {gate: {outs: [{path: a}]}}"]
)
def test_without_a_readable_lock_file_there_is_no_baseline(recorded: Path, content: str | None) -> None:
    lock = recorded / "dvc.lock"
    lock.unlink() if content is None else lock.write_text(content)

    assert read_previous_metrics("digits") == {}


@pytest.mark.parametrize("content", [None, "", "[]", '{"onnx-fp32": 3}'])
def test_without_the_cached_reports_there_is_no_baseline(recorded: Path, content: str | None) -> None:
    for path in (path for path in (recorded / ".dvc/cache").rglob("*") if path.is_file()):
        path.unlink() if content is None else path.write_text(content)

    assert read_previous_metrics("digits") == {}
