"""Bundles around model files that this pipeline did not build: only the model, golden samples and a manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edge_agent.storage import manifest as bundle_manifest

from stages.core.files import sha256


def write_bundle(
    folder: Path,
    file: Path,
    io: Mapping[str, Any],
    described: Mapping[str, Any],
    golden: tuple[np.ndarray, np.ndarray],
    target: str,
    batch: str | None,
) -> None:
    """Write an unpacked bundle into `folder`.

    Args:
        folder: The folder of the bundle, which must not exist.
        file: The model file.
        io: The description of the model file's inputs and outputs.
        described: The fields of the manifest that describe the task: name, task, input and output.
        golden: The inputs and the probabilities of the golden samples.
        target: Name of the target.
        batch: `joinable` or `single`; None writes a manifest of version 1, which has no such field.
    """
    (folder / "golden").mkdir(parents=True)
    shutil.copyfile(file, folder / file.name)
    for part, values in zip(("inputs", "outputs"), golden, strict=True):
        np.save(folder / "golden" / f"{part}.npy", values)
    paths = [file.name, "golden/inputs.npy", "golden/outputs.npy"]
    files = {p: {"sha256": sha256(folder / p), "size_bytes": (folder / p).stat().st_size} for p in paths}
    own = {
        "file": file.name,
        **files[file.name],
        "precision": target.rpartition("-")[2],
        "io": dict(io),
        "metrics": {"samples": 1, "confidence": 0.95, "estimates": {}},
        "golden": {
            "inputs": "golden/inputs.npy",
            "outputs": "golden/outputs.npy",
            "samples": len(golden[0]),
            "tolerance": 0.01,
        },
    }
    manifest = {
        "schema_version": 1,
        "description": "Brought along.",
        "licence": "Apache-2.0",
        **described,
        "data": {"snapshot": "2026-01-01T00:00:00Z", "sources": {"theirs": "0" * 64}},
        "inputs": {},
        "parameters": {},
        "targets": {target: own},
        "files": files,
        "libraries": {},
    }
    if batch is not None:
        own["batch"] = batch
        manifest |= {"schema_version": 2, "agent_version": "0.2.0"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    bundle_manifest.verify(folder, bundle_manifest.read(folder))


def series(name: str, axes: list[str], shape: list[int], channels: int, classes: int) -> dict[str, Any]:
    """Return the fields of a manifest that describe a time series and its classes."""
    return {
        "name": name,
        "task": "series-classification",
        "input": {
            "kind": "series",
            "dtype": "float32",
            "axes": axes,
            "shape": shape,
            "channels": [{"name": f"c{i}", "unit": "g"} for i in range(channels)],
            "rate_hz": 100.0,
        },
        "output": {"meaning": "probability of each class", "classes": [f"class-{i}" for i in range(classes)]},
    }
