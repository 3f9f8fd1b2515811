"""evaluate: what cannot be measured is refused by name, and the last report stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.agent.model_files import description, onnx_linear
from tests.support.stages.bench import call_stage
from tests.support.stages.evaluate import CLASSES, GROUPS, LABELS, TARGET, X, evaluate, put_model, set_parameter


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
    return "found logits for 9 samples of test"


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
    return "expected: finite logits of type float32 and shape [400, 3]"


def reference_of_other_classes(root: Path) -> str:
    np.savez(root / "models/reference.npz", test=X[:, :2])
    return "found logits of type float32 and shape [400, 2] for test"


def reference_of_labels(root: Path) -> str:
    np.savez(root / "models/reference.npz", test=LABELS)
    return "expected: logits for the 400"


def other_classes(root: Path) -> str:
    put_model(root, onnx_linear(root / "model.onnx", np.eye(3)[:, :2]), description("onnxruntime", [3], 2))
    return f"its description has 2 outputs, expected one for each class, {CLASSES}"


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
    return "error: data/prepared/test: input: found NaN or infinity in sample 7"


def empty_test(root: Path) -> str:
    for name, value in (("x", X[:0]), ("y", LABELS[:0]), ("group", np.array(GROUPS[:0], dtype="U6"))):
        np.save(root / f"data/prepared/test/{name}.npy", value)
    return "found no samples"


def too_few_repeats(root: Path) -> str:
    set_parameter(root, "repeats", 100)
    return "at least 368 repeats, for an interval of the 99th percentile with confidence 0.95"


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
def test_what_cannot_be_measured_is_refused_and_the_last_report_stays(
    measurable: Path, spoil: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = measurable / "reports/evaluate" / TARGET / "metrics.json"
    report.parent.mkdir(parents=True)
    report.write_text("earlier")
    expected = spoil(measurable)

    code = call_stage("evaluate", monkeypatch, "--target", TARGET)

    assert code == 1
    assert expected in capsys.readouterr().err
    assert report.read_text() == "earlier"


def test_the_command_line_ends_without_a_traceback(measurable: Path) -> None:
    expected = damage_file(measurable)

    done = evaluate(measurable)

    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
