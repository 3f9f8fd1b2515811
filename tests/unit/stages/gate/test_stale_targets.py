"""Only the outputs of targets that are no longer built are removed."""

from __future__ import annotations

from pathlib import Path

from stages.gate.stale_targets import remove_stale_targets


def test_only_folders_of_targets_that_are_not_built_go(tmp_path: Path) -> None:
    for folder in ("models/exported", "reports/evaluate"):
        for name in ("onnx-fp32", "onnx-int8", "notes"):
            (tmp_path / folder / name).mkdir(parents=True)

    removed = remove_stale_targets(["onnx-fp32"], tmp_path)

    assert removed == ["models/exported/onnx-int8", "reports/evaluate/onnx-int8"]
    remaining = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*/*"))
    assert remaining == [
        f"{folder}/{name}" for folder in ("models/exported", "reports/evaluate") for name in ("notes", "onnx-fp32")
    ]
    assert remove_stale_targets(["onnx-fp32"], tmp_path) == []
