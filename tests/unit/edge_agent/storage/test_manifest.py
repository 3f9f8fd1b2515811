"""The manifest as a device reads it: checked by its schema, and the files checked by it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from edge_agent.storage import manifest
from edge_agent.storage.manifest import ManifestError
from jsonschema import Draft202012Validator

MODEL = b"a model"
FILES = {"targets/onnx-fp32/model.onnx": MODEL, "golden/inputs.npy": b"in", "golden/onnx-fp32.npy": b"out"}
ESTIMATE = {"value": 0.9, "low": 0.8, "high": 1.0}


def valid() -> dict[str, Any]:
    model = {"sha256": sha256(MODEL).hexdigest(), "size_bytes": len(MODEL)}
    return {
        "schema_version": 2,
        "agent_version": "0.2.0",
        "name": "digits",
        "task": "image-classification",
        "description": "Reads a digit.",
        "licence": "Apache-2.0",
        "input": {
            "kind": "image", "dtype": "float32", "axes": ["channel", "height", "width"], "shape": [1, 8, 8],
            "channels": [{"name": "ink", "unit": "1/16"}], "rate_hz": None,
        },
        "output": {"meaning": "probability of each class", "classes": ["0", "1"]},
        "data": {"snapshot": "2026-11-01T00:00:00Z", "sources": {"digits": "1" * 64}},
        "inputs": {"data/prepared": "2" * 64},
        "parameters": {"train": "3" * 64},
        "targets": {
            "onnx-fp32": {
                "file": "targets/onnx-fp32/model.onnx", **model, "precision": "fp32", "batch": "joinable",
                "io": {
                    "runtime": "onnxruntime",
                    "input": {"name": "x", "shape": [1, 8, 8], "dtype": "float32"},
                    "output": {"name": "y", "shape": [2], "dtype": "float32", "activation": "logits"},
                    "recurrent": None,
                },
                "metrics": {"samples": 360, "confidence": 0.95, "estimates": {"accuracy": ESTIMATE}},
                "golden": {
                    "inputs": "golden/inputs.npy", "outputs": "golden/onnx-fp32.npy", "samples": 2, "tolerance": 0.001,
                },
            }
        },
        "files": {name: {"sha256": sha256(data).hexdigest(), "size_bytes": len(data)} for name, data in FILES.items()},
        "libraries": {"torch": "2.13.0"},
    }  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    """A valid manifest with one field set (or removed: ...)."""
    result = copy.deepcopy(valid())
    *parents, last = path.split("|")
    block = result
    for parent in parents:
        block = block[parent]
    if value is ...:
        del block[last]
    else:
        block[last] = value
    return result


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "manifest.json").write_text(json.dumps(valid()))
    return tmp_path


def test_the_schema_itself_is_valid() -> None:
    Draft202012Validator.check_schema(json.loads(manifest.SCHEMA_FILE.read_text()))


def test_a_valid_manifest_is_read_and_its_files_verified(bundle: Path) -> None:
    read = manifest.read(bundle)
    manifest.verify(bundle, read)

    assert read == valid()


@pytest.mark.parametrize("version", [0, 3, "1", True, None])
def test_another_schema_version_is_refused_first(version: Any) -> None:
    other = changed("schema_version", version) | {"unknown": True}

    with pytest.raises(ManifestError, match=r"schema_version: found .*; expected 1 or 2, the versions") as error:
        manifest.check(other)

    assert error.value.field == "schema_version"


def test_a_newer_manifest_states_the_agent_version_that_is_needed() -> None:
    with pytest.raises(manifest.UnknownVersionError) as error:
        manifest.check({"schema_version": 3, "agent_version": "0.9.0"})

    assert error.value.agent_version == "0.9.0"


@pytest.mark.parametrize("stated", [None, "1.0", {"a": 1}])
def test_a_newer_manifest_need_not_state_the_agent_version(stated: Any) -> None:
    with pytest.raises(manifest.UnknownVersionError) as error:
        manifest.check({"schema_version": 3, "agent_version": stated})

    assert error.value.agent_version is None


def version_1() -> dict[str, Any]:
    """The same manifest as the pipeline wrote it in version 1 of the format."""
    old = changed("targets|onnx-fp32|batch", ...) | {"schema_version": 1}
    del old["agent_version"]
    return old


def test_a_manifest_of_version_1_is_read_as_single() -> None:
    read = manifest.check(version_1())

    assert read == changed("targets|onnx-fp32|batch", "single") | {"agent_version": "0.1.0"}


def test_a_manifest_of_version_1_cannot_declare_a_file_joinable() -> None:
    with pytest.raises(ManifestError) as error:
        manifest.check(valid() | {"schema_version": 1})

    assert (error.value.field, error.value.found) == ("schema_version", "1")


@pytest.mark.parametrize(
    ("path", "value", "field", "expected"),
    [
        ("name", "../digits", "name", "matches"),
        ("name", ..., "", "the fields schema_version, agent_version, name"),
        ("surprise", 1, "", "only fields"),
        ("input|shape", [1, 0], "input.shape.1", "minimum"),
        ("input|dtype", "int8", "input.dtype", "float32"),
        ("input|rate_hz", "8000", "input.rate_hz", "number"),
        ("output|classes", ["0"], "output.classes", "short"),
        ("output|classes", ["0", "0"], "output.classes", "unique"),
        ("targets", {}, "targets", "non-empty"),
        ("targets|onnx-fp32|sha256", "abc", "targets.onnx-fp32.sha256", "matches"),
        ("targets|onnx-fp32|precision", "fp16", "targets.onnx-fp32.precision", "one of"),
        ("targets|onnx-fp32|io|runtime", "tvm", "targets.onnx-fp32.io.runtime", "one of"),
        ("targets|onnx-fp32|batch", ..., "targets.onnx-fp32", "the fields file"),
        ("targets|onnx-fp32|batch", "many", "targets.onnx-fp32.batch", "one of"),
        ("targets|onnx-fp32|io|output|activation", "logit", "targets.onnx-fp32.io.output.activation", "one of"),
        ("targets|onnx-fp32|io|output|activation", ..., "targets.onnx-fp32.io.output", "activation"),
        ("targets|onnx-fp32|io|output|scale", 1, "targets.onnx-fp32.io.output", "only fields"),
        ("targets|onnx-fp32|io|input|dtype", "float16", "targets.onnx-fp32.io.input.dtype", "one of"),
        ("targets|onnx-fp32|io|input|shape", [8, 8], "targets.onnx-fp32.io.input.shape", "input.shape"),
        ("targets|onnx-fp32|io|output|shape", [3], "targets.onnx-fp32.io.output.shape", "each class"),
        ("targets|onnx-fp32|io|recurrent", {"frame": 2, "hop": 1}, "targets.onnx-fp32.io.recurrent", "states"),
        (
            "targets|onnx-fp32|io|recurrent",
            {"frame": 9, "hop": 1, "states": [{"input": "s", "output": "t", "shape": [2]}]},
            "targets.onnx-fp32.io.recurrent.frame",
            "at most 8",
        ),
        ("input|axes", ["channel", "height"], "input.axes", "3 axes"),
        ("input|axes", ["channel", "height", "time"], "input.axes", "height, width"),
        ("input|axes", ["height", "height", "width"], "input.axes", "unique"),
        ("input|channels", [{"name": c, "unit": ""} for c in "ab"], "input.channels", "1, the size"),
        ("targets|onnx-fp32|golden|tolerance", -1, "targets.onnx-fp32.golden.tolerance", "minimum"),
        ("targets|onnx-fp32|metrics|estimates|accuracy", 0.9, "targets.onnx-fp32.metrics.estimates.accuracy", "object"),
        ("targets|onnx-fp32|file", "targets/other", "targets.onnx-fp32.file", "listed under"),
        ("targets|onnx-fp32|sha256", "0" * 64, "targets.onnx-fp32.sha256", "the value in `files`"),
        ("files|../x", {"sha256": "0" * 64, "size_bytes": 1}, "files", ""),
        ("files|/etc/passwd", {"sha256": "0" * 64, "size_bytes": 1}, "files", ""),
    ],
)
def test_what_breaks_the_schema_is_named(path: str, value: Any, field: str, expected: str) -> None:
    with pytest.raises(ManifestError) as error:
        manifest.check(changed(path, value))

    assert error.value.field == field
    assert expected in error.value.expected
    assert error.value.found


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_manifest_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)

    with pytest.raises(ManifestError, match=r"manifest\.json"):
        manifest.read(bundle)


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file"):
        manifest.read(tmp_path)


def test_a_changed_file_is_noticed(bundle: Path) -> None:
    (bundle / "targets/onnx-fp32/model.onnx").write_bytes(b"A model")

    with pytest.raises(ManifestError, match="sha256") as error:
        manifest.verify(bundle, manifest.read(bundle))

    assert error.value.field == "targets/onnx-fp32/model.onnx"


def test_a_truncated_file_is_noticed(bundle: Path) -> None:
    (bundle / "golden/inputs.npy").write_bytes(b"i")

    with pytest.raises(ManifestError, match="1 bytes; expected 2 bytes"):
        manifest.verify(bundle, manifest.read(bundle))


def test_a_missing_file_is_noticed(bundle: Path) -> None:
    (bundle / "golden/inputs.npy").unlink()

    with pytest.raises(ManifestError, match="found nothing"):
        manifest.verify(bundle, manifest.read(bundle))


def test_a_file_too_many_is_noticed(bundle: Path) -> None:
    (bundle / "targets/onnx-fp32/extra.so").write_bytes(b"\x7fELF")

    with pytest.raises(ManifestError, match="does not list"):
        manifest.verify(bundle, manifest.read(bundle))


def test_a_link_is_refused_even_to_the_right_content(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "model.onnx"
    model = bundle / "targets/onnx-fp32/model.onnx"
    model.rename(elsewhere)
    model.symlink_to(elsewhere)

    with pytest.raises(ManifestError, match="link"):
        manifest.verify(bundle, manifest.read(bundle))


def test_reading_needs_no_heavy_library() -> None:
    code = "import sys, edge_agent.storage.manifest; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )

    assert loaded.isdisjoint({"torch", "pandas", "pydantic", "stages", "onnxruntime", "tensorflow"})
