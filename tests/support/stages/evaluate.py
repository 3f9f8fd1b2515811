"""A model file with known outputs, and everything that `python -m stages.evaluate` needs to measure it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stages.core.dataset import Channel, SampleSpec, Scaling
from stages.core.files import sha256, write_json
from tests.support.agent.model_files import description, onnx_linear
from tests.support.stages.export import write_prepared
from tests.support.stages.workspace import copy_code

# The class is the index of the largest of three values. Every tenth of the 400 samples is labelled as the next class.
RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 3)).astype(np.float32)
ANSWER = X.argmax(axis=1)
WRONG = np.arange(400) % 10 == 0
LABELS = np.where(WRONG, (ANSWER + 1) % 3, ANSWER)
GROUPS = [f"pump {i % 4}" for i in range(400)]  # every tenth sample is in pump 0 or pump 2
TARGET = "onnx-fp32"
CLASSES = ["running", "blocked", "leaking"]  # not in alphabetical order


def write_measurable(root: Path) -> Path:
    """Write everything that `python -m stages.evaluate` needs into the folder `root`."""
    copy_code(root)
    spec = SampleSpec(
        kind="series", shape=[3], channels=[Channel(name="a", unit="1")], classes=CLASSES, rate_hz=1.0,
        scaling=Scaling(method="none", center=[0.0], scale=[1.0]),
    )  # fmt: skip
    write_prepared(root / "data/prepared", spec, {"test": (X, LABELS)}, GROUPS)
    (root / "models").mkdir()
    np.savez(root / "models/reference.npz", test=X, validation=X[:5])
    put_model(root, onnx_linear(root / "model.onnx", np.eye(3)))
    return root


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


def set_parameter(root: Path, name: str, value: Any) -> None:
    path = root / "tasks/digits/params.yaml"
    content = yaml.safe_load(path.read_text())
    content["evaluate"][name] = value
    path.write_text(yaml.safe_dump(content))
