"""The bundle: what is in it, that it repeats to the byte, and when there is none."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_agent import manifest as bundle_manifest
from edge_agent.archive import unpack
from edge_agent.manifest import ManifestError
from edge_agent.runtime import open_model

from stages import gate, package
from stages.errors import GateError, StageError
from stages.files import sha256
from tests.built_fixtures import build, change_report, edit, report

ARCHIVE = Path("models/bundle/digits.tar.zst")


@pytest.fixture
def gated(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in which everything up to the gate has been written, and the gate passed."""
    build(workspace)
    monkeypatch.setattr(sys, "argv", ["stage"])
    gate.main()
    return workspace


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
        given = open_model(folder / target["file"], target["io"]).predict(inputs)
        assert inputs.shape == (16, 1, 8, 8)
        assert np.abs(given - outputs).max() <= target["golden"]["tolerance"], name
        assert np.allclose(outputs.sum(1), 1, atol=1e-5)


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

    assert package.golden_indices(labels, 3).tolist() == [0, 6, 7]
    assert package.golden_indices(labels, 5).tolist() == [0, 1, 6, 7, 8]
    assert package.golden_indices(labels, 100).tolist() == list(range(9))


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
        "schema_version", "name", "task", "description", "licence", "input", "output", "data", "inputs", "parameters",
        "requirements", "targets", "files", "libraries",
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
    ):
        assert words in card


def test_the_model_card_says_when_test_groups_were_in_training(gated: Path) -> None:
    package.main()
    assert "No sample_id of the test split was in training" in (unpacked(gated) / "model_card.md").read_text()

    tested, trained = (gated / f"data/prepared/{split}/group.npy" for split in ("test", "train"))
    np.save(trained, np.resize(np.load(tested), len(np.load(trained))))
    package.main()
    assert "360 of the 360 sample_id values in the test split" in (unpacked(gated) / "model_card.md").read_text()


def test_an_optional_target_that_failed_is_left_out_and_named(gated: Path) -> None:
    edit(gated, lambda task: task["gate"]["targets"]["onnx-int8"].update(required=False, size_kb=0.1))
    gate.main()

    package.main()

    folder = unpacked(gated)
    assert list(bundle_manifest.read(folder)["targets"]) == ["onnx-fp32"]
    assert not (folder / "targets" / "onnx-int8").exists()
    assert "- onnx-int8: size_kb" in (folder / "model_card.md").read_text()


def test_after_a_failed_gate_there_is_no_bundle(gated: Path) -> None:
    edit(gated, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    with pytest.raises(GateError):
        gate.main()

    with pytest.raises(GateError, match="the gate did not pass"):
        package.main()

    assert not (gated / "models/bundle").exists()


@pytest.mark.parametrize("passed", [False, "yes", 1, None, []])
def test_only_a_passed_gate_opens(gated: Path, passed: Any) -> None:
    judged = json.loads((gated / "reports/gate.json").read_text())
    (gated / "reports/gate.json").write_text(json.dumps({**judged, "passed": passed}))

    with pytest.raises(StageError, match=r"reports/gate\.json"):
        package.main()

    assert not (gated / "models/bundle").exists()


def test_the_verdict_on_another_task_does_not_open(gated: Path) -> None:
    edit(gated, lambda task: task.update(name="letters"))

    with pytest.raises(GateError, match="it judged 'digits'\n  expected: 'letters'"):
        package.main()


def test_a_file_that_the_gate_did_not_judge_is_refused_and_the_last_bundle_stays(gated: Path) -> None:
    package.main()
    before = sha256(gated / ARCHIVE)
    with (gated / "models/exported/onnx-fp32/model.onnx").open("ab") as stream:
        stream.write(b"\0")

    with pytest.raises(StageError, match=r"model\.onnx: found sha256"):
        package.main()

    export = gated / "models/exported/onnx-fp32/export.json"
    file = export.parent / "model.onnx"
    new = {"sha256": sha256(file), "size_bytes": file.stat().st_size}
    export.write_text(json.dumps({**json.loads(export.read_text()), **new}))
    with pytest.raises(GateError, match="judged another file"):
        package.main()

    assert sha256(gated / ARCHIVE) == before


def test_a_target_that_the_gate_did_not_judge_is_refused(gated: Path) -> None:
    judged = json.loads((gated / "reports/gate.json").read_text())
    del judged["targets"]["onnx-int8"]
    (gated / "reports/gate.json").write_text(json.dumps(judged))

    with pytest.raises(GateError, match="onnx-int8 was not judged"):
        package.main()


@pytest.mark.parametrize(
    ("gone", "where"),
    [
        ("reports/gate.json", "gate.json"),
        ("models/exported/onnx-fp32/model.onnx", "model.onnx"),
        ("data/drift_reference.json", "drift_reference.json"),
        ("models/trained", "models/trained"),
    ],
)
def test_what_is_missing_is_named_without_a_traceback(gated: Path, gone: str, where: str) -> None:
    path = gated / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    done = subprocess.run([sys.executable, "-m", "stages.package"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert where in done.stderr


def test_a_model_file_that_does_not_load_is_named(gated: Path) -> None:
    file = gated / "models/exported/onnx-fp32/model.onnx"
    file.write_bytes(b"not a model")
    export = json.loads((file.parent / "export.json").read_text())
    export |= {"sha256": sha256(file), "size_bytes": file.stat().st_size}
    (file.parent / "export.json").write_text(json.dumps(export))
    change_report(gated, "onnx-fp32", model_sha256=sha256(file), size_bytes=file.stat().st_size)
    gate.main()

    with pytest.raises(StageError, match=r"onnx-fp32/model\.onnx"):
        package.main()


def test_a_report_of_another_shape_is_refused_by_the_schema(gated: Path) -> None:
    change_report(gated, "onnx-fp32", samples="many")

    with pytest.raises(StageError, match=r"onnx-fp32/metrics\.json: samples: found 'many'"):
        package.main()


DAMAGE: dict[str, str | None] = {
    "missing": None, "empty": "", "no JSON": "\x00\x01", "list": "[]", "text": '"all is well"', "null": "null",
    "no field": "{}", "NaN": '{"samples": NaN}', "infinite": '{"samples": 1e999}', "deep": "[" * 100_000,
}  # fmt: skip


def stays(root: Path, where: str) -> None:
    """`package` ends with a message that names the file; the last bundle and every other file stays as it was."""
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(StageError) as error:
        package.main()
    assert where in error.value.where
    assert error.value.remedy
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    "name",
    [
        "reports/gate.json", "reports/evaluate/onnx-fp32/metrics.json", "models/exported/onnx-fp32/export.json",
        "data/drift_reference.json", "data/prepared/spec.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("damage", [*DAMAGE, "cut"])
def test_a_damaged_input_is_named_and_the_last_bundle_stays(gated: Path, name: str, damage: str) -> None:
    package.main()
    path = gated / name
    content = path.read_text()[:-30] if damage == "cut" else DAMAGE[damage]
    path.unlink() if content is None else path.write_text(content)

    stays(gated, name)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("reports/gate.json", {"targets": {"onnx-fp32": {}, "onnx-int8": {}}}),
        ("reports/gate.json", {"targets": []}),
        ("reports/gate.json", {"checks": [3]}),
        ("reports/gate.json", {"name": 3}),
        ("reports/evaluate/onnx-fp32/metrics.json", {"per_class": {"0": {"f1": 1.0, "support": 1}}}),
        ("reports/evaluate/onnx-fp32/metrics.json", {"prediction_ratios": {}}),
        ("reports/evaluate/onnx-fp32/metrics.json", {"confidence_bins": {"edges": [0.5], "ratios": [1.0]}}),
        ("reports/evaluate/onnx-fp32/metrics.json", {"confidence": "high"}),
        ("reports/evaluate/onnx-fp32/metrics.json", {"accuracy": {"value": "0.9", "low": 0.8, "high": 1.0}}),
        ("reports/evaluate/onnx-fp32/metrics.json", {"model_sha256": "0" * 64}),
        ("models/exported/onnx-fp32/export.json", {"io": {}}),
        ("models/exported/onnx-fp32/export.json", {"file": "../onnx-int8/model.onnx"}),
        ("models/exported/onnx-fp32/export.json", {"size_bytes": 1}),
        ("data/drift_reference.json", {"schema_version": 2}),
        ("data/drift_reference.json", {"features": []}),
        ("data/drift_reference.json", {"labels": {"0": 1.0}}),
        (
            "data/drift_reference.json",
            {"features": [{"name": "a", "channel": 1, "statistic": "mean", "edges": [], "ratios": [1.0]}]},
        ),
        (
            "data/drift_reference.json",
            {"features": [{"name": "a", "channel": 0, "statistic": "mean", "edges": [2.0, 1.0], "ratios": [1, 0, 0]}]},
        ),
    ],
)
def test_an_input_that_does_not_fit_is_named_and_the_last_bundle_stays(
    gated: Path, name: str, change: dict[str, Any]
) -> None:
    package.main()
    path = gated / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    stays(gated, name)


@pytest.mark.parametrize("name", ["x", "y", "group"])
def test_damaged_samples_are_named_and_the_last_bundle_stays(gated: Path, name: str) -> None:
    package.main()
    path = gated / f"data/prepared/test/{name}.npy"
    path.write_bytes(path.read_bytes()[:-9])

    stays(gated, f"data/prepared/test/{name}.npy")


def test_a_passed_gate_with_a_failed_check_of_the_pipeline_is_no_verdict(gated: Path) -> None:
    judged = json.loads((gated / "reports/gate.json").read_text())
    judged["checks"][0]["passed"] = False
    (gated / "reports/gate.json").write_text(json.dumps(judged))

    with pytest.raises(StageError, match=r"gate\.json: passed: found true, though quality failed"):
        package.main()


def test_a_tampered_bundle_is_noticed_after_it_is_unpacked(gated: Path) -> None:
    package.main()
    folder = unpacked(gated)
    model = folder / "targets/onnx-fp32/model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)

    with pytest.raises(ManifestError, match="sha256"):
        bundle_manifest.verify(folder, bundle_manifest.read(folder))


def test_when_the_disk_takes_no_more_the_last_bundle_stays(gated: Path) -> None:
    """A limit on the size of a file ends a write as a full disk does, and needs no root."""
    package.main()
    before = sha256(gated / ARCHIVE)
    limit = (gated / ARCHIVE).stat().st_size * 3 // 4

    done = subprocess.run(
        [sys.executable, "-m", "stages.package"], capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "free the space" in done.stderr
    assert sha256(gated / ARCHIVE) == before
    assert list((gated / "models").rglob(".*")) == []


@pytest.mark.parametrize("name", ["gate", "package", "summary"])
def test_help_is_quick_and_says_what_the_stage_does(workspace: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"stages.{name}", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert loaded.isdisjoint({"torch", "tensorflow", "pandas", "great_expectations", "dvc", "pyspark"})
    assert f"python -m stages.{name}" in done.stdout
