"""The bundle: what is in it, and that it repeats to the byte."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_agent.inference.runtime import open_model
from edge_agent.storage import manifest as bundle_manifest
from edge_agent.storage.archive import unpack
from edge_agent.storage.manifest import ManifestError

from stages.core.errors import StageError
from stages.core.files import sha256
from stages.gate import stage as gate
from stages.package import stage as package
from stages.package.golden import golden_indices, replay
from stages.package.passed import Passed
from tests.support.agent import neighbours
from tests.support.stages.built import change_report, edit, regroup, report

ARCHIVE = Path("models/bundle/digits.tar.zst")


def unpacked(root: Path) -> Path:
    folder = root / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    unpack(root / ARCHIVE, folder)
    return folder


def read(root: Path) -> dict[str, Any]:
    return bundle_manifest.read(unpacked(root))


def test_a_bundle_holds_what_a_device_needs_and_nothing_else(gated: Path) -> None:
    package.main()

    folder = unpacked(gated)
    manifest = bundle_manifest.read(folder)
    bundle_manifest.verify(folder, manifest)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "drift_reference.json", "golden/inputs.npy", "golden/onnx-fp32.npy", "golden/onnx-int8.npy", "manifest.json",
        "model_card.md", "sbom.cdx.json", "targets/onnx-fp32/model.onnx", "targets/onnx-int8/model.onnx",
    ]  # fmt: skip
    assert manifest["output"]["classes"] == [str(i) for i in range(10)]
    assert manifest["input"]["channels"] == [{"name": "ink", "unit": "1/16"}]
    assert manifest["input"]["axes"] == ["channel", "height", "width"]
    assert manifest["data"]["snapshot"] == "2026-11-01T00:00:00Z"
    assert manifest["data"]["sources"] == {"digits": sha256(gated / "data/snapshot/digits")}
    assert manifest["targets"]["onnx-int8"]["sha256"] == sha256(gated / "models/exported/onnx-int8/model.onnx")


def test_golden_samples_replay_through_the_runtime_of_the_device(gated: Path) -> None:
    package.main()

    folder = unpacked(gated)
    for name, target in bundle_manifest.read(folder)["targets"].items():
        inputs = np.load(folder / target["golden"]["inputs"])
        outputs = np.load(folder / target["golden"]["outputs"])
        answers = open_model(folder / target["file"], target["io"]).predict(inputs)
        assert inputs.shape == (16, 1, 8, 8)
        assert np.abs(answers - outputs).max() <= target["golden"]["tolerance"], name
        assert np.allclose(outputs.sum(1), 1, atol=1e-5)
        assert target["batch"] == "joinable"


def test_a_file_whose_results_depend_on_the_neighbours_is_declared_single(gated: Path) -> None:
    file = neighbours.dynamic_int8(gated / "model.onnx")
    target = Passed(file, {"io": neighbours.IO}, {})

    outputs, batch = replay(target, neighbours.samples(16), 0.05)

    assert batch == "single"
    assert np.abs(outputs - neighbours.alone(file, neighbours.samples(16))).max() < 1e-6


def test_outputs_that_are_not_probabilities_are_refused(gated: Path) -> None:
    target = Passed(neighbours.without_softmax(gated / "model.onnx"), {"io": neighbours.IO}, {})

    with pytest.raises(StageError, match="but probabilities"):
        replay(target, neighbours.samples(16), 0.05)


def test_golden_samples_are_as_many_and_as_tolerant_as_the_parameters_say(gated: Path) -> None:
    tolerance = {"fp32": 0.002, "int8": 0.03}
    edit(gated, lambda task: task["package"].update(golden_samples=12, golden_tolerance=tolerance))
    package.main()

    targets = read(gated)["targets"]
    assert {own["precision"]: own["golden"]["tolerance"] for own in targets.values()} == tolerance
    assert {own["golden"]["samples"] for own in targets.values()} == {12}


def test_golden_samples_notice_an_exchanged_model(gated: Path) -> None:
    package.main()

    folder = unpacked(gated)
    target = bundle_manifest.read(folder)["targets"]["onnx-fp32"]
    inputs, outputs = (np.load(folder / target["golden"][name]) for name in ("inputs", "outputs"))
    turned = open_model(folder / target["file"], target["io"]).predict(np.ascontiguousarray(inputs[:, :, ::-1]))
    assert np.abs(turned - outputs).max() > target["golden"]["tolerance"]


def test_golden_samples_show_every_class_first() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 2, 2])

    assert golden_indices(labels, 3).tolist() == [0, 6, 7]
    assert golden_indices(labels, 5).tolist() == [0, 1, 6, 7, 8]
    assert golden_indices(labels, 100).tolist() == list(range(9))


def test_twice_the_same_bytes(gated: Path) -> None:
    package.main()
    first = sha256(gated / ARCHIVE)
    shutil.rmtree(gated / "models/bundle")

    package.main()

    assert sha256(gated / ARCHIVE) == first


def test_times_and_memory_change_no_byte(gated: Path) -> None:
    package.main()
    first = sha256(gated / ARCHIVE)
    slower = {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in ("p50", "p95", "p99")}
    change_report(gated, "onnx-fp32", latency_ms=slower, memory_mb={"value": 77.0, "low": 76.0, "high": 78.0})
    gate.main()

    package.main()

    assert sha256(gated / ARCHIVE) == first


@pytest.mark.parametrize(
    ("change", "block"),
    [
        (lambda task: task["train"].update(epochs=41), "train"),
        (lambda task: task["data"]["channels"]["ink"].update(unit="1/15"), "data"),
    ],
)
def test_a_changed_parameter_changes_its_digest_alone(gated: Path, change: Any, block: str) -> None:
    package.main()
    before = read(gated)["parameters"]
    edit(gated, change)

    package.main()

    after = read(gated)["parameters"]
    assert {name for name in before if before[name] != after[name]} == {block}


def test_nothing_in_the_manifest_is_a_version_a_time_or_a_place(gated: Path) -> None:
    package.main()

    text = json.dumps(read(gated))
    assert str(gated) not in text
    assert "latency_ms" not in text  # what was measured; a budget is a parameter
    assert set(read(gated)) == {
        "schema_version", "agent_version", "name", "task", "description", "licence", "input", "output", "data",
        "inputs", "parameters", "requirements", "targets", "files", "libraries",
    }  # fmt: skip


def test_the_manifest_says_what_a_device_must_have(gated: Path) -> None:
    def demand(task: dict[str, Any]) -> None:
        task["package"]["requirements"] |= {"device_types": ["meter-camera"], "memory_mb": 256.0}
        task["package"]["requirements"]["runtimes"] = {"onnxruntime": "1.20"}
        task["package"]["device_budget"] = {"latency_p95_ms": 25.0, "memory_mb": None}

    edit(gated, demand)
    package.main()

    manifest = read(gated)
    assert manifest["requirements"] == {
        "device_types": ["meter-camera"], "architectures": None, "memory_mb": 256.0, "disk_mb": None,
    }  # fmt: skip
    for name, target in manifest["targets"].items():
        assert target["budget"] == {"latency_p95_ms": 25.0, "memory_mb": None}
        assert target.get("runtime_version") == ("1.20" if name.startswith("onnx") else None)


def test_the_drift_reference_knows_what_each_target_predicts(gated: Path) -> None:
    package.main()

    reference = json.loads((unpacked(gated) / "drift_reference.json").read_text())
    assert reference["features"][0]["name"] == "ink.mean"
    assert reference["targets"]["onnx-int8"]["prediction_ratios"] == report(gated, "onnx-int8")["prediction_ratios"]
    assert reference["targets"]["onnx-int8"]["confidence_bins"] == report(gated, "onnx-int8")["confidence_bins"]


def test_the_model_card_says_what_how_good_and_where_not(gated: Path) -> None:
    package.main()

    card = (unpacked(gated) / "model_card.md").read_text()
    accuracy = report(gated, "onnx-fp32")["accuracy"]
    assert f"{accuracy['value']:.4f} [{accuracy['low']:.4f}, {accuracy['high']:.4f}]" in card
    for words in (
        "Reads one handwritten digit",
        "Apache-2.0",
        "clean, centred digits",
        "ink (1/16)",
        "360 test",
        "1 channel x 8 height x 8 width",
        "| Agreement with the compressed torch model | 1.0000 ",
    ):
        assert words in card


def test_the_model_card_says_when_test_groups_were_in_training(gated: Path) -> None:
    package.main()
    assert "No sample_id of the test split was in training" in (unpacked(gated) / "model_card.md").read_text()

    tested, trained = (gated / f"data/prepared/{split}/group.npy" for split in ("test", "train"))
    np.save(trained, np.resize(np.load(tested), len(np.load(trained))))
    package.main()
    assert "360 of the 360 sample_id values in the test split" in (unpacked(gated) / "model_card.md").read_text()


def test_the_model_card_says_what_the_intervals_rest_on(gated: Path) -> None:
    regroup(gated, [f"writer {i % 7}" for i in range(360)])
    gate.main()
    package.main()

    card = (unpacked(gated) / "model_card.md").read_text()
    assert "confidence interval, which treats all samples of one sample_id as a unit. Keep in mind: 7 groups" in card


def test_an_optional_target_that_failed_is_left_out_and_named(gated: Path) -> None:
    edit(gated, lambda task: task["gate"]["targets"]["onnx-int8"].update(required=False, size_kb=0.1))
    gate.main()

    package.main()

    folder = unpacked(gated)
    assert list(bundle_manifest.read(folder)["targets"]) == ["onnx-fp32"]
    assert not (folder / "targets" / "onnx-int8").exists()
    assert "- onnx-int8: size_kb" in (folder / "model_card.md").read_text()


def test_a_tampered_bundle_is_noticed_after_it_is_unpacked(gated: Path) -> None:
    package.main()
    folder = unpacked(gated)
    model = folder / "targets/onnx-fp32/model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)

    with pytest.raises(ManifestError, match="sha256"):
        bundle_manifest.verify(folder, bundle_manifest.read(folder))


@pytest.mark.parametrize("name", ["gate", "package", "enforce", "summary"])
def test_help_is_quick_and_says_what_the_stage_does(workspace: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"stages.{name}", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert loaded.isdisjoint({"torch", "tensorflow", "pandas", "great_expectations", "dvc", "pyspark"})
    assert f"python -m stages.{name}" in done.stdout
