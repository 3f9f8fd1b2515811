"""Evaluation of a file whose answers are known by hand, through the stage's own command."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from stages.dataset import Channel, SampleSpec, Scaling
from stages.files import sha256, write_json
from tests.conftest import COPIED, REPOSITORY
from tests.export_fixtures import write_prepared
from tests.model_files import description, onnx_linear, tflite_int8_linear

# Three classes by the largest of three values; of 400 samples the label of every tenth is the next class.
RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 3)).astype(np.float32)
ANSWER = X.argmax(axis=1)
WRONG = np.arange(400) % 10 == 0
LABELS = np.where(WRONG, (ANSWER + 1) % 3, ANSWER)
GROUPS = [f"pump {i % 4}" for i in range(400)]  # every tenth sample is in pump 0 or pump 2
TARGET = "onnx-fp32"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `python -m stages.evaluate` had all that it needs, and has run."""
    root = tmp_path_factory.mktemp("measured")
    for name in COPIED:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, root / name)
    spec = SampleSpec(
        kind="series", shape=[3], channels=[Channel(name="a", unit="1")], classes=["x", "y", "z"], rate_hz=1.0,
        scaling=Scaling(method="none", center=[0.0], scale=[1.0]),
    )  # fmt: skip
    write_prepared(root / "data/prepared", spec, {"test": (X, LABELS)}, GROUPS)
    (root / "models").mkdir()
    np.savez(root / "models/reference.npz", test=X, validation=X[:5])
    put_model(root, onnx_linear(root / "model.onnx", np.eye(3)))
    done = evaluate(root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def copy(measured: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(measured, tmp_path / "copy"))


def put_model(root: Path, file: Path, io: dict[str, Any] | None = None, target: str = TARGET) -> Path:
    folder = root / "models/exported" / target
    folder.mkdir(parents=True, exist_ok=True)
    exported = folder / file.name
    file.replace(exported)
    io = io or description("onnxruntime", [3], 3)
    described = {"file": file.name, "sha256": sha256(exported), "size_bytes": exported.stat().st_size, "io": io}
    write_json(folder / "export.json", described)
    return exported


def evaluate(root: Path, target: str = TARGET) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.evaluate", "--target", target],
        cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def metrics(root: Path, target: str = TARGET) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((root / "reports/evaluate" / target / "metrics.json").read_text())
    return report


def set_parameter(root: Path, name: str, value: Any) -> None:
    path = root / "tasks/digits/params.yaml"
    content = yaml.safe_load(path.read_text())
    content["evaluate"][name] = value
    path.write_text(yaml.safe_dump(content))


def test_the_report_holds_what_is_known_by_hand(measured: Path) -> None:
    found = metrics(measured)

    assert found["samples"] == 400
    assert found["accuracy"]["value"] == 0.9
    assert found["accuracy"]["low"] == pytest.approx(0.8668, abs=1e-3), "Wilson, by hand"
    assert found["recall_weighted"]["value"] == pytest.approx(0.9)
    assert found["agreement"] == {"value": 1.0, "low": pytest.approx(0.9905, abs=1e-4), "high": 1.0}
    assert {name: g["accuracy"] for name, g in found["by_group"].items()} == {
        "pump 0": 0.8, "pump 1": 1.0, "pump 2": 0.8, "pump 3": 1.0
    }  # fmt: skip
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (LABELS, ANSWER), 1)
    assert found["confusion"] == expected.tolist()
    assert found["per_class"]["x"]["support"] == int((LABELS == 0).sum())
    assert sum(found["prediction_ratios"].values()) == pytest.approx(1)
    assert sum(found["confidence_bins"]["ratios"]) == pytest.approx(1)
    assert len(found["confidence_bins"]["edges"]) + 1 == len(found["confidence_bins"]["ratios"])
    assert found["model_sha256"] == sha256(measured / "models/exported" / TARGET / "model.onnx")


def test_every_estimate_lies_in_its_interval(measured: Path) -> None:
    found = metrics(measured)

    estimates = {
        name: value
        for name, value in {**found, **found["latency_ms"]}.items()
        if isinstance(value, dict) and "value" in value
    }

    expected = {"accuracy", "f1_macro", "f1_weighted", "precision_macro", "calibration_error", "agreement", "memory_mb"}
    assert expected | {"p50", "p95", "p99"} <= set(estimates)
    assert not {name for name, e in estimates.items() if not e["low"] <= e["value"] <= e["high"]}
    assert found["latency_ms"]["p50"]["value"] > 0
    assert found["memory_mb"]["value"] > 0


def test_predictions_are_listed_sample_by_sample(measured: Path) -> None:
    with (measured / "reports/evaluate" / TARGET / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))

    assert len(rows) == 400
    assert [row["predicted"] for row in rows] == [["x", "y", "z"][k] for k in ANSWER]
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

    assert metrics(copy)["accuracy"]["low"] < metrics(measured)["accuracy"]["low"]
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


def damage_file(root: Path) -> str:
    path = root / "models/exported" / TARGET / "model.onnx"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    return "model.onnx: found sha256"


def remove_export(root: Path) -> str:
    (root / "models/exported" / TARGET / "export.json").unlink()
    return "export.json: there is no such file"


def remove_file(root: Path) -> str:
    (root / "models/exported" / TARGET / "model.onnx").unlink()
    return "model.onnx: there is no such file"


def answer_nan(root: Path) -> str:
    put_model(root, onnx_linear(root / "model.onnx", np.eye(3), operator="Log"))
    return "found NaN or infinity, expected finite numbers"


def describe_another(root: Path) -> str:
    put_model(root, onnx_linear(root / "model.onnx", np.eye(3)), description("onnxruntime", [4], 3))
    return "expected (samples, 4)"


def shorten_reference(root: Path) -> str:
    np.savez(root / "models/reference.npz", test=X[:9])
    return "found logits of 9 samples of test"


def break_reference(root: Path) -> str:
    (root / "models/reference.npz").write_bytes(b"PK not a zip file")
    return "reference.npz: not readable"


def cut_reference(root: Path) -> str:
    path = root / "models/reference.npz"
    path.write_bytes(path.read_bytes()[:-40])
    return "reference.npz: not readable"


def spoil_reference(root: Path) -> str:
    path = root / "models/reference.npz"
    content = bytearray(path.read_bytes())
    content[200:240] = bytes(40)
    path.write_bytes(content)
    return "reference.npz: not readable"


def reference_of_one_array(root: Path) -> str:
    with (root / "models/reference.npz").open("wb") as stream:
        np.save(stream, X)
    return "reference.npz: not readable"


def reference_of_objects(root: Path) -> str:
    np.savez(root / "models/reference.npz", test=np.array([None] * 400))
    return "reference.npz: not readable"


def reference_of_nothing(root: Path) -> str:
    np.savez(root / "models/reference.npz", other=X)
    return "reference.npz: not readable"


def reference_of_nan(root: Path) -> str:
    np.savez(root / "models/reference.npz", test=X * np.float32(np.nan))
    return "expected: finite float32 [400, 3]"


def reference_of_other_classes(root: Path) -> str:
    np.savez(root / "models/reference.npz", test=X[:, :2])
    return "found float32 [400, 2] for test"


def reference_of_labels(root: Path) -> str:
    np.savez(root / "models/reference.npz", test=LABELS)
    return "expected: those of the 400"


def other_classes(root: Path) -> str:
    put_model(root, onnx_linear(root / "model.onnx", np.eye(3)[:, :2]), description("onnxruntime", [3], 2))
    return "described with 2 outputs, expected one for each of ['x', 'y', 'z']"


def cut_data(root: Path) -> str:
    path = root / "data/prepared/test/x.npy"
    path.write_bytes(path.read_bytes()[:-9])
    return "data/prepared/test/x.npy: not readable as an array"


def cut_specification(root: Path) -> str:
    (root / "data/prepared/spec.json").write_text('{"kind": "im')
    return "data/prepared/spec.json: not readable as JSON"


def describe_badly(field: str, value: Any) -> Any:
    def spoil(root: Path) -> str:
        path = root / "models/exported" / TARGET / "export.json"
        described = json.loads(path.read_text())
        described["io" if field.startswith("io") else field] = value
        path.write_text(json.dumps(described))
        return f"export.json: {field}: found "

    spoil.__name__ = f"describe {field} {value}"
    return spoil


DESCRIPTIONS = [
    describe_badly("io.runtime", {}),
    describe_badly("io", 3),
    describe_badly("io.input", {"runtime": "onnxruntime"}),
    describe_badly("file", "../../reference.npz"),
    describe_badly("file", None),
    describe_badly("sha256", 3),
    describe_badly("size_bytes", -1),
    describe_badly("size_bytes", 1),
]


def remove_reference(root: Path) -> str:
    (root / "models/reference.npz").unlink()
    return "reference.npz: there is no such file"


def put_nan_into_the_data(root: Path) -> str:
    x = X.copy()
    x[7, 1] = np.nan
    np.save(root / "data/prepared/test/x.npy", x)
    return "found NaN or infinity in sample 7"


def empty_test(root: Path) -> str:
    for name, value in (("x", X[:0]), ("y", LABELS[:0]), ("group", np.array(GROUPS[:0], dtype="U6"))):
        np.save(root / f"data/prepared/test/{name}.npy", value)
    return "found no samples"


def too_few_repeats(root: Path) -> str:
    set_parameter(root, "repeats", 100)
    return "repeats must be at least 368 for a p99 with confidence 0.95"


@pytest.mark.parametrize(
    "spoil",
    [
        damage_file, remove_export, remove_file, answer_nan, describe_another, shorten_reference, break_reference,
        remove_reference, put_nan_into_the_data, empty_test, too_few_repeats, cut_reference, spoil_reference,
        reference_of_one_array, reference_of_objects, reference_of_nothing, reference_of_nan,
        reference_of_other_classes, reference_of_labels, other_classes, cut_data, cut_specification, *DESCRIPTIONS,
    ],
    ids=lambda spoil: spoil.__name__,
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_and_the_last_report_stays(copy: Path, spoil: Any) -> None:
    report = copy / "reports/evaluate" / TARGET / "metrics.json"
    report.write_text("earlier")
    expected = spoil(copy)

    done = evaluate(copy)

    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert report.read_text() == "earlier"


def test_nothing_of_torch_or_tensorflow_is_loaded(copy: Path) -> None:
    program = (
        f"import sys; sys.argv = ['evaluate', '--target', '{TARGET}']\n"
        "from stages.evaluate import main; main()\n"
        "print([name for name in ('torch', 'tensorflow', 'jax', 'keras', 'pandas', 'scipy') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
