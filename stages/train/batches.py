"""The prepared data as batches, the loss that is trained on, and how good a network is on a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from stages.core.dataset import SPLITS, SampleSpec, Split
from stages.core.errors import StageError
from stages.metrics.confusion import averages
from stages.networks import Network
from stages.params.train import Train

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Data:
    """The prepared data: what a sample is, and the three splits."""

    spec: SampleSpec
    train: Split
    validation: Split
    test: Split

    @classmethod
    def open(cls, prepared: Path) -> Data:
        """Raises StageError where a split is missing, empty, or trains fewer than two classes."""
        if not (prepared / "spec.json").exists():
            raise StageError(str(prepared), "no prepared data", "what the stage prepare writes", "dvc repro prepare")
        splits = {name: Split.open(prepared, name) for name in SPLITS}
        for name, split in splits.items():
            if len(split) == 0:
                raise StageError(str(prepared / name), "found no samples", "at least one", "mend prepare.split")
        spec = SampleSpec.read(prepared)
        present = np.unique(splits["train"].y)
        if len(present) < 2:
            raise StageError(
                str(prepared / "train" / "y.npy"),
                f"every training sample is of class {spec.classes[int(present[0])]!r}",
                "at least two classes to tell apart",
                "take in data of other classes, or mend prepare.split",
            )
        return cls(spec, **splits)


@dataclass(frozen=True)
class Scores:
    """On one split. `loss` is the plain cross entropy; `f1_macro` is the mean over classes that occur."""

    loss: float
    accuracy: float
    f1_macro: float


def load_batch(split: Split, index: np.ndarray | slice, fabric: Fabric) -> tuple[Tensor, Tensor]:
    return _tensor(split.samples(index)).to(fabric.device), _tensor(split.y[index]).to(fabric.device)


def _tensor(values: np.ndarray) -> Tensor:
    """A copy: what is mapped from a file is read-only, and torch warns of it."""
    return torch.from_numpy(np.array(values))


def class_weights(labels: np.ndarray, classes: int, params: Train) -> Tensor | None:
    """`balanced`: inverse to the class's share of the training split, on average 1 per sample; absent classes 0."""
    if params.class_weights == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    weights = np.where(counts, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)
    return torch.tensor(weights, dtype=torch.float32)


def cross_entropy(data: Data, params: Train, device: torch.device) -> Objective:
    weights = class_weights(np.asarray(data.train.y), len(data.spec.classes), params)
    weights = None if weights is None else weights.to(device)
    return lambda logits, _x, y: F.cross_entropy(logits, y, weight=weights, label_smoothing=params.label_smoothing)


@torch.no_grad()
def evaluate(fabric: Fabric, network: Network, split: Split, batch_size: int) -> Scores:
    """Every rank its share of the split; all get the scores of the whole."""
    network.eval()
    classes = len(network.spec.classes)
    confusion = torch.zeros(classes, classes, dtype=torch.float64)
    loss = torch.zeros(1, dtype=torch.float64)
    mine = np.arange(fabric.global_rank, len(split), fabric.world_size)
    for begin in range(0, len(mine), batch_size):
        x, y = load_batch(split, mine[begin : begin + batch_size], fabric)
        logits = network(x)
        loss += F.cross_entropy(logits, y, reduction="sum").double().cpu()
        pairs = (y * classes + logits.argmax(1)).cpu()
        confusion += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    confusion, loss = summed(fabric, confusion), summed(fabric, loss)
    accuracy = float(confusion.diagonal().sum() / confusion.sum())
    return Scores(float(loss / len(split)), accuracy, float(averages(confusion.numpy())["f1_macro"]))


@torch.no_grad()
def all_logits(network: Network, split: Split, batch_size: int) -> np.ndarray:
    """Logits of the whole split in its order: [N, classes] float32."""
    network.eval()
    device = next(network.parameters()).device
    chunks = (split.samples(slice(begin, begin + batch_size)) for begin in range(0, len(split), batch_size))
    return np.concatenate([network(_tensor(x).to(device)).cpu().numpy() for x in chunks])


def training_batches(data: Data, batch_size: int, most: int | None = None) -> Iterator[Tensor]:
    """The training split in its order, unchanged; with `most`, evenly spaced samples of about so many values."""
    samples = len(data.train)
    if most is not None:
        samples = min(samples, max(1, most // math.prod(data.spec.shape)))
    index = np.linspace(0, len(data.train) - 1, samples).round().astype(np.int64)
    for begin in range(0, samples, batch_size):
        yield _tensor(data.train.samples(index[begin : begin + batch_size]))


def summed(fabric: Fabric, value: Tensor) -> Tensor:
    if fabric.world_size == 1:
        return value
    total = cast(Tensor, fabric.all_reduce(value.to(fabric.device), reduce_op="sum"))
    return total.cpu()
