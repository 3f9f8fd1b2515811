"""Small tasks with a network trained for them, in the files that the stages before `export` write."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from sklearn.datasets import load_digits

from stages.core.dataset import AudioFeatures, Channel, SampleSpec, Scaling, Split
from stages.networks import Network, build, save
from stages.params.train import Train
from tests.support.paths import REPOSITORY
from tests.support.stages.workspace import COPIED

Samples = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Case:
    """An export to test: a task, a network for it, and its changes to the network of the default task."""

    name: str
    task: str
    network: str
    changes: dict[str, Any]
    epochs: int


CASES = {
    case.name: case
    for case in (
        Case("cnn-2d", "digits", "cnn", {"cnn": {"channels": [16, 32], "hidden": 32, "dropout": 0.1}}, 4),
        Case("cnn-1d", "series", "cnn", {"cnn": {"channels": [16, 16], "hidden": 16, "head": "average"}}, 4),
        Case("cnn-log-mel", "tones", "cnn", {"cnn": {"channels": [8, 16], "hidden": 16, "head": "average"}}, 6),
        Case("gru", "series", "rnn", {"rnn": {"hidden": 24, "frame": 4, "hop": 4, "pool": "max"}}, 4),
        Case("lstm", "digits", "rnn", {"rnn": {"cell": "lstm", "hidden": 32, "layers": 2}}, 6),
        Case("transformer", "digits", "transformer", {"transformer": {"width": 32, "feedforward": 64}}, 8),
    )
}


def write_task(root: Path, case: Case) -> Network:
    """Write code, parameters, data/prepared, models/compressed/model.pt and models/reference.npz into `root`."""
    for name in COPIED:
        if not (root / name).exists():
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            copy(REPOSITORY / name, root / name)
    prepared = root / "data/prepared"
    spec, splits = TASKS[case.task]()
    write_prepared(prepared, spec, splits)
    network = train_briefly(prepared, spec, case)
    save(network, root / "models/compressed/model.pt")
    reference: dict[str, Any] = {name: answers(network, x) for name, (x, _) in splits.items()}
    np.savez(root / "models/reference.npz", **reference)
    return network


def write_prepared(
    prepared: Path, spec: SampleSpec, splits: dict[str, Samples], groups: Sequence[str] | None = None
) -> None:
    prepared.mkdir(parents=True)
    spec.write(prepared)
    for name, (x, y) in splits.items():
        (prepared / name).mkdir()
        np.save(prepared / name / "x.npy", x.astype(np.float32))
        np.save(prepared / name / "y.npy", y.astype(np.int64))
        np.save(prepared / name / "group.npy", np.array(groups or [f"{name}{i}" for i in range(len(y))]))


def train_briefly(prepared: Path, spec: SampleSpec, case: Case) -> Network:
    """Train enough for meaningful outputs, with batch norms and fitted preprocessing as after real training."""
    values = yaml.safe_load((REPOSITORY / "tasks/digits/params.yaml").read_text())["train"]
    values["network"] = case.network
    for block, changes in case.changes.items():
        values[block] = {**values[block], **changes} if isinstance(changes, dict) else changes
    torch.manual_seed(0)
    network = build(spec, Train.model_validate(values))
    split = Split.open(prepared, "train")
    x, y = torch.from_numpy(np.array(split.x)), torch.from_numpy(np.array(split.y))
    network.preprocess.fit_to_samples(x.split(64))
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3)
    network.train()
    for _ in range(case.epochs):
        for chosen in torch.randperm(len(x)).split(32):
            loss = torch.nn.functional.cross_entropy(network(x[chosen]), y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.eval()


@torch.no_grad()
def answers(network: Network, x: np.ndarray) -> np.ndarray:
    logits: np.ndarray = network(torch.from_numpy(x.astype(np.float32))).numpy()
    return logits


def split_samples(x: np.ndarray, y: np.ndarray, held: int) -> dict[str, Samples]:
    order = np.random.default_rng(0).permutation(len(x))
    test, validation, train = np.split(order, [held, 2 * held])
    return {"train": (x[train], y[train]), "validation": (x[validation], y[validation]), "test": (x[test], y[test])}


def digits() -> tuple[SampleSpec, dict[str, Samples]]:
    """Return all images of the default task."""
    data = load_digits()
    spec = SampleSpec(
        kind="image", shape=[1, 8, 8], channels=[Channel(name="ink", unit="1/16")],
        classes=[str(digit) for digit in range(10)], rate_hz=None,
        scaling=Scaling(method="normalise", center=[0.0], scale=[16.0]),
    )  # fmt: skip
    return spec, split_samples(data.images[:, None], data.target, 250)


def series() -> tuple[SampleSpec, dict[str, Samples]]:
    """Return two channels whose ranges differ by a factor of a million; only the small one separates the classes."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 1200)
    time = np.arange(32)
    small = 1e-3 * np.sin(time * (0.3 + 0.25 * y[:, None]) + rng.uniform(0, 6, (1200, 1)))
    large = 5e3 + 1e3 * rng.normal(size=(1200, 32))
    x = np.stack([small + 2e-4 * rng.normal(size=small.shape), large], axis=1)
    spec = SampleSpec(
        kind="series", shape=[2, 32], channels=[Channel(name="strain", unit="1"), Channel(name="load", unit="N")],
        classes=["normal", "anomaly"], rate_hz=1.0,
        scaling=Scaling(method="standardise", center=[0.0, 5e3], scale=[7e-4, 1e3]),
    )  # fmt: skip
    return spec, split_samples(x, y, 250)


def tones(features: Literal["log-mel", "mfcc"] = "log-mel") -> tuple[SampleSpec, dict[str, Samples]]:
    """Return four tones in noise, 0.2 s at 8 kHz."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 4, 900)
    frequency = np.array([300, 700, 1500, 3000])[y] * rng.uniform(0.9, 1.1, 900)
    time = np.arange(1600) / 8000
    x = 0.3 * np.sin(2 * np.pi * frequency[:, None] * time + rng.uniform(0, 6, (900, 1)))
    x += rng.uniform(0.01, 0.3, (900, 1)) * rng.normal(size=x.shape)
    coefficients = 13 if features == "mfcc" else None
    spec = SampleSpec(
        kind="audio", shape=[1, 1600], channels=[Channel(name="sound", unit="full scale")],
        classes=["low", "middle", "high", "very high"], rate_hz=8000.0,
        scaling=Scaling(method="none", center=[0.0], scale=[1.0]),
        features=AudioFeatures(type=features, frame=128, hop=64, bands=20, coefficients=coefficients),
    )  # fmt: skip
    return spec, split_samples(x.astype(np.float32)[:, None], y, 200)


TASKS: dict[str, Callable[[], tuple[SampleSpec, dict[str, Samples]]]] = {
    "digits": digits,
    "series": series,
    "tones": tones,
    "mfcc": lambda: tones("mfcc"),
}
