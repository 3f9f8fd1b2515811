"""Evaluation of a file whose answers are known by hand, through the stage's own command."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.files import sha256
from tests.support.agent.model_files import description, tflite_int8_linear
from tests.support.stages.evaluate import ANSWER, CLASSES, LABELS, TARGET, evaluate, put_model, set_parameter

pytestmark = pytest.mark.slow  # each measures in processes of their own


def metrics(root: Path, target: str = TARGET) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((root / "reports/evaluate" / target / "metrics.json").read_text())
    return report


def test_the_report_holds_what_is_known_by_hand(measured: Path) -> None:
    result = metrics(measured)

    assert result["samples"] == 400
    assert result["accuracy"]["value"] == 0.9
    assert (result["accuracy"]["low"], result["accuracy"]["high"]) == (0.8, 1.0), "all of the better, all of the worse"
    assert result["intervals"]["unit"] == "group"
    assert result["intervals"]["caveat"].startswith("4 groups are few")
    assert result["recall_weighted"]["value"] == pytest.approx(0.9)
    assert result["agreement"] == {"value": 1.0, "low": pytest.approx(0.9905, abs=1e-4), "high": 1.0}
    assert {name: g["accuracy"] for name, g in result["by_group"].items()} == {
        "pump 0": 0.8, "pump 1": 1.0, "pump 2": 0.8, "pump 3": 1.0
    }  # fmt: skip
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (LABELS, ANSWER), 1)
    assert result["confusion"] == expected.tolist()
    assert result["classes"] == CLASSES
    for name, row in zip(CLASSES, expected, strict=True):
        assert result["per_class"][name]["support"] == row.sum()
    assert sum(result["prediction_ratios"].values()) == pytest.approx(1)
    assert sum(result["confidence_bins"]["ratios"]) == pytest.approx(1)
    assert len(result["confidence_bins"]["edges"]) + 1 == len(result["confidence_bins"]["ratios"])
    assert result["model_sha256"] == sha256(measured / "models/exported" / TARGET / "model.onnx")


def test_samples_that_are_groups_of_their_own_have_the_interval_of_wilson(copy: Path) -> None:
    np.save(copy / "data/prepared/test/group.npy", np.array([f"pump {i}" for i in range(400)]))

    evaluate(copy)

    result = metrics(copy)
    assert result["intervals"] == {"unit": "sample", "units": 400, "caveat": None}
    assert result["accuracy"]["low"] == pytest.approx(0.8668, abs=1e-3), "by hand"
    assert result["by_group"] == {}


def test_every_estimate_lies_in_its_interval(measured: Path) -> None:
    result = metrics(measured)

    estimates = {
        name: value
        for name, value in {**result, **result["latency_ms"]}.items()
        if isinstance(value, dict) and "value" in value
    }

    expected = {"accuracy", "f1_macro", "f1_weighted", "precision_macro", "calibration_error", "agreement", "memory_mb"}
    assert expected | {"p50", "p95", "p99"} <= set(estimates)
    assert not {name for name, e in estimates.items() if not e["low"] <= e["value"] <= e["high"]}
    assert result["latency_ms"]["p50"]["value"] > 0
    assert result["memory_mb"]["value"] > 0


def test_predictions_are_listed_sample_by_sample(measured: Path) -> None:
    with (measured / "reports/evaluate" / TARGET / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))

    assert len(rows) == 400
    assert [row["predicted"] for row in rows] == [CLASSES[k] for k in ANSWER]
    assert rows[1]["group"] == "pump 1"
    assert 1 / 3 <= float(rows[0]["confidence"]) <= 1


def test_all_but_times_memory_and_machine_repeats_exactly(measured: Path, copy: Path) -> None:
    evaluate(copy)
    first, second = metrics(measured), metrics(copy)

    for name in ("latency_ms", "memory_mb", "machine"):
        del first[name], second[name]
    assert first == second
    lists = [(root / "reports/evaluate" / TARGET / "predictions.csv").read_bytes() for root in (measured, copy)]
    assert lists[0] == lists[1]


def test_parameters_steer_the_intervals_and_the_threads(measured: Path, copy: Path) -> None:
    set_parameter(copy, "confidence", 0.99)
    set_parameter(copy, "repeats", 600)
    set_parameter(copy, "threads", 2)

    evaluate(copy)

    assert metrics(copy)["f1_macro"]["low"] < metrics(measured)["f1_macro"]["low"]
    assert metrics(copy)["confidence"] == 0.99
    assert metrics(copy)["machine"]["threads"] == 2


def test_a_tflite_file_with_int8_input_and_output_is_measured_as_well(copy: Path) -> None:
    file = tflite_int8_linear(copy / "model.tflite", np.eye(3), (0.03, 0), (0.03, 0))
    io = description("litert", [3], 3)
    io["input"]["dtype"] = io["output"]["dtype"] = "int8"
    put_model(copy, file, io, "tflite-int8")

    done = evaluate(copy, "tflite-int8")

    assert done.returncode == 0, done.stderr
    assert metrics(copy, "tflite-int8")["agreement"]["value"] >= 0.97
    assert "ai-edge-litert" in metrics(copy, "tflite-int8")["machine"]["runtime"]


def test_nothing_of_torch_or_tensorflow_is_loaded(copy: Path) -> None:
    program = (
        f"import sys; sys.argv = ['evaluate', '--target', '{TARGET}']\n"
        "from stages.evaluate.stage import main; main()\n"
        "print([name for name in ('torch', 'tensorflow', 'jax', 'keras', 'pandas', 'scipy') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
