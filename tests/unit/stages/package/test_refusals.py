"""No bundle: a refused model, inputs that are damaged or do not fit, a full disk; a valid last bundle stays."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import GateError, StageError
from stages.core.files import sha256
from stages.gate import stage as gate
from stages.package import stage as package
from tests.support.stages.built import change_report, edit

pytestmark = pytest.mark.slow

ARCHIVE = Path("models/bundle/digits.tar.zst")


def test_after_a_failed_gate_there_is_no_bundle(gated: Path) -> None:
    edit(gated, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    gate.main()

    package.main()

    (text,) = (gated / "models/bundle").iterdir()
    assert text.name == "NO_BUNDLE.txt"
    assert "the gate did not pass; no bundle is made\n  onnx-fp32 accuracy: 0." in text.read_text()
    assert "see reports/index.html" in text.read_text()


def test_the_bundle_of_an_earlier_build_does_not_stay_beside_a_refusal(packaged: Path) -> None:
    before = (packaged / ARCHIVE).read_bytes()
    edit(packaged, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    gate.main()
    package.main()
    assert not (packaged / ARCHIVE).exists()

    edit(packaged, lambda task: task["gate"]["metrics"].update(accuracy=0.85))
    gate.main()
    package.main()
    assert [path.name for path in (packaged / "models/bundle").iterdir()] == [ARCHIVE.name]
    assert (packaged / ARCHIVE).read_bytes() == before


@pytest.mark.parametrize("passed", ["yes", 1, None, []])
def test_only_a_passed_gate_opens(gated: Path, passed: Any) -> None:
    judged = json.loads((gated / "reports/gate.json").read_text())
    (gated / "reports/gate.json").write_text(json.dumps({**judged, "passed": passed}))

    with pytest.raises(StageError, match=r"reports/gate\.json"):
        package.main()

    assert not (gated / "models/bundle").exists()


def test_the_verdict_on_another_task_does_not_open(gated: Path) -> None:
    edit(gated, lambda task: task.update(name="letters"))

    with pytest.raises(GateError, match="the verdict is for the task 'digits'\n  expected: 'letters'"):
        package.main()


def test_a_file_that_the_gate_did_not_judge_is_refused_and_the_last_bundle_stays(packaged: Path) -> None:
    before = sha256(packaged / ARCHIVE)
    with (packaged / "models/exported/onnx-fp32/model.onnx").open("ab") as stream:
        stream.write(b"\0")

    with pytest.raises(StageError, match=r"model\.onnx: found sha256"):
        package.main()

    export = packaged / "models/exported/onnx-fp32/export.json"
    file = export.parent / "model.onnx"
    new = {"sha256": sha256(file), "size_bytes": file.stat().st_size}
    export.write_text(json.dumps({**json.loads(export.read_text()), **new}))
    with pytest.raises(GateError, match="judged a different file"):
        package.main()

    assert sha256(packaged / ARCHIVE) == before


def test_a_target_that_the_gate_did_not_judge_is_refused(gated: Path) -> None:
    judged = json.loads((gated / "reports/gate.json").read_text())
    del judged["targets"]["onnx-int8"]
    (gated / "reports/gate.json").write_text(json.dumps(judged))

    with pytest.raises(GateError, match="onnx-int8 was not judged"):
        package.main()


@pytest.mark.parametrize(
    ("removed", "where"),
    [
        ("reports/gate.json", "gate.json"),
        ("models/exported/onnx-fp32/model.onnx", "model.onnx"),
        ("data/drift_reference.json", "drift_reference.json"),
        ("models/trained", "models/trained"),
    ],
)
def test_what_is_missing_is_named_without_a_traceback(gated: Path, removed: str, where: str) -> None:
    path = gated / removed
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
def test_a_damaged_input_is_named_and_the_last_bundle_stays(packaged: Path, name: str, damage: str) -> None:
    path = packaged / name
    content = path.read_text()[:-30] if damage == "cut" else DAMAGE[damage]
    path.unlink() if content is None else path.write_text(content)

    stays(packaged, name)


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
    packaged: Path, name: str, change: dict[str, Any]
) -> None:
    path = packaged / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    stays(packaged, name)


@pytest.mark.parametrize("field", ["accuracy", "memory_mb"])
def test_a_report_that_the_gate_did_not_judge_is_refused_and_the_last_bundle_stays(packaged: Path, field: str) -> None:
    change_report(packaged, "onnx-fp32", **{field: {"value": 0.99, "low": 0.98, "high": 1.0}})

    stays(packaged, "reports/evaluate/onnx-fp32/metrics.json")


@pytest.mark.parametrize(
    ("inputs", "field"),
    [(None, "inputs"), ([], "inputs"), ({"reports/quality.json": 3}, r"inputs\.reports/quality\.json")],
)
def test_a_verdict_that_does_not_say_on_which_files_it_is_does_not_open(gated: Path, inputs: Any, field: str) -> None:
    judged = json.loads((gated / "reports/gate.json").read_text())
    (gated / "reports/gate.json").write_text(json.dumps({**judged, "inputs": inputs}))

    with pytest.raises(StageError, match=rf"gate\.json: {field}: found"):
        package.main()


@pytest.mark.parametrize("name", ["x", "y", "group"])
def test_damaged_samples_are_named_and_the_last_bundle_stays(packaged: Path, name: str) -> None:
    path = packaged / f"data/prepared/test/{name}.npy"
    path.write_bytes(path.read_bytes()[:-9])

    stays(packaged, f"data/prepared/test/{name}.npy")


def test_a_passed_gate_with_a_failed_check_of_the_pipeline_is_no_verdict(gated: Path) -> None:
    judged = json.loads((gated / "reports/gate.json").read_text())
    judged["checks"][0]["passed"] = False
    (gated / "reports/gate.json").write_text(json.dumps(judged))

    with pytest.raises(StageError, match=r"gate\.json: passed: found true, although quality failed"):
        package.main()


def test_when_the_disk_takes_no_more_the_last_bundle_stays(packaged: Path) -> None:
    """A limit on the size of a file ends a write as a full disk does, and needs no root."""
    before = sha256(packaged / ARCHIVE)
    limit = (packaged / ARCHIVE).stat().st_size * 3 // 4

    done = subprocess.run(
        [sys.executable, "-m", "stages.package"], capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "free disk space" in done.stderr
    assert sha256(packaged / ARCHIVE) == before
    assert list((packaged / "models").rglob(".*")) == []
