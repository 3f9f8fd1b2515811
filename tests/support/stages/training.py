"""Small real training tasks for each kind of sample. Each takes a few seconds to learn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sklearn.datasets import load_digits

from stages.core.dataset import SPLITS, AudioFeatures, Channel, SampleSpec, Scaling
from stages.params.train import Train

SIZES: dict[str, dict[str, Any]] = {
    "cnn": {"channels": [8, 16], "kernel": 3, "pool": 2, "head": "flatten", "hidden": 32, "dropout": 0.1},
    "rnn": {"cell": "gru", "hidden": 16, "layers": 1, "frame": 1, "hop": 1, "pool": "last", "dropout": 0.0},
    "transformer": {"width": 16, "heads": 2, "layers": 1, "feedforward": 32, "patch": 2, "dropout": 0.0},
}


def spec_of(kind: str) -> SampleSpec:
    """Return the specification of `image`, `series`, or audio samples (`log-mel`, `mfcc` or `raw`)."""
    if kind == "image":
        return SampleSpec(
            kind="image",
            shape=[1, 8, 8],
            channels=[Channel(name="ink", unit="1/16")],
            classes=[str(digit) for digit in range(10)],
            rate_hz=None,
            scaling=Scaling(method="normalise", center=[0.0], scale=[16.0]),
        )
    if kind == "series":
        return SampleSpec(
            kind="series",
            shape=[3, 24],
            channels=[Channel(name=name, unit="g") for name in "xyz"],
            classes=["slow", "fast"],
            rate_hz=10.0,
            scaling=Scaling(method="standardise", center=[5.0, 0.0, -5.0], scale=[1.0, 1.0, 2.0]),
        )
    features = None
    if kind != "raw":
        coefficients = 13 if kind == "mfcc" else None
        features = AudioFeatures(type=kind, frame=128, hop=64, bands=20, coefficients=coefficients)
    return SampleSpec(
        kind="audio",
        shape=[1, 1200],
        channels=[Channel(name="sound", unit="1")],
        classes=["low", "high"],
        rate_hz=8000.0,
        scaling=Scaling(method="none", center=[0.0], scale=[1.0]),
        features=features,
    )


def samples(kind: str, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return x [N, *shape] and y [N]: real digits, or noisy sine waves with one frequency per class."""
    if kind == "image":
        digits = load_digits()
        order = np.random.default_rng(seed).permutation(len(digits.target))[:count]
        return digits.images[order][:, None].astype(np.float32), digits.target[order].astype(np.int64)
    spec, random = spec_of(kind), np.random.default_rng(seed)
    y = np.arange(count) % 2
    cycles = np.where(y, 6, 2) if kind == "series" else np.where(y, 250, 80)
    time = np.arange(spec.shape[1]) / spec.shape[1]
    wave = np.sin(2 * np.pi * (cycles[:, None] * time + random.random((count, 1))))[:, None]
    x = wave * np.ones((1, spec.shape[0], 1)) + random.normal(0, 0.1, (count, *spec.shape))
    center, scale = (np.array(values)[None, :, None] for values in (spec.scaling.center, spec.scaling.scale))
    return (x * (0.3 if kind not in ("series",) else 1.0) * scale + center).astype(np.float32), y.astype(np.int64)


def write_prepared(root: Path, kind: str, counts: tuple[int, int, int] = (160, 60, 60)) -> Path:
    """Write data/prepared below `root`, as `prepare` does."""
    prepared = root / "data" / "prepared"
    x, y = samples(kind, sum(counts))
    begin = 0
    for name, count in zip(SPLITS, counts, strict=True):
        part = slice(begin, begin + count)
        begin += count
        (prepared / name).mkdir(parents=True)
        np.save(prepared / name / "y.npy", y[part])
        np.save(prepared / name / "group.npy", np.array([f"{name}{i}" for i in range(count)]))
        if kind == "series":  # the rows, and the index of each window's first row
            np.save(prepared / name / "x.npy", np.concatenate(list(x[part].transpose(0, 2, 1))))
            np.save(prepared / name / "starts.npy", np.arange(count) * x.shape[2])
        else:
            np.save(prepared / name / "x.npy", x[part])
    spec_of(kind).write(prepared)
    return prepared


def recipe(network: str = "cnn", **changes: Any) -> dict[str, Any]:
    """Return a `train:` block. `changes` replace values; nested blocks are merged."""
    block: dict[str, Any] = {
        "network": network,
        "quantile_bins": 0,
        **SIZES,
        "epochs": 4,
        "batch_size": 32,
        "optimiser": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.01},
        "scheduler": {"name": "cosine", "warmup_epochs": 0, "step_epochs": 2, "factor": 0.5},
        "label_smoothing": 0.0,
        "class_weights": "none",
        "early_stopping": {"patience": 10},
        "metric": "accuracy",
        "augment": {"noise": 0.0, "rotation_deg": 0.0, "scaling": 0.0, "time_shift": 0.0},
    }
    for name, value in changes.items():
        block[name] = {**block[name], **value} if isinstance(value, dict) else value
    return block


def train_params(network: str = "cnn", **changes: Any) -> Train:
    return Train.model_validate(recipe(network, **changes))


def write_params(root: Path, **blocks: Any) -> None:
    """Merge these blocks into the task's parameters in a workspace."""
    path = root / "tasks" / "digits" / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for name, block in blocks.items():
        params[name] = {**params[name], **block}
    path.write_text(yaml.safe_dump(params))


def run_stage(root: Path, *arguments: str, threads: str = "1", timeout: float = 300) -> Any:
    """Run `python -m stages...` in a separate process, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def prepare_digits(workspace: Path) -> Path:
    """Put prepared digits and a small, quick recipe into the workspace."""
    write_prepared(workspace, "image", (400, 100, 100))
    write_params(workspace, train=recipe("cnn", augment={"noise": 0.05, "rotation_deg": 5.0}))
    return workspace
