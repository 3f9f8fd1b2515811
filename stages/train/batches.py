"""Open the prepared data and divide it into batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from stages.core.dataset import SPLITS, SampleSpec, Split
from stages.core.errors import StageError


@dataclass(frozen=True)
class Data:
    """The prepared data: the description of a sample, and the three splits."""

    spec: SampleSpec
    train: Split
    validation: Split
    test: Split

    @classmethod
    def open(cls, prepared: Path) -> Data:
        """Open the prepared data in a folder that the `prepare` stage wrote.

        Raises:
            StageError: A split is missing or empty, or the training split has fewer than two classes.
        """
        if not (prepared / "spec.json").exists():
            raise StageError(
                str(prepared), "no prepared data", "the files that the `prepare` stage writes", "run dvc repro prepare"
            )
        splits = {name: Split.open(prepared, name) for name in SPLITS}
        for name, split in splits.items():
            if len(split) == 0:
                raise StageError(
                    str(prepared / name), "found no samples", "at least one sample", "change prepare.split"
                )
        spec = SampleSpec.read(prepared)
        present = np.unique(splits["train"].y)
        if len(present) < 2:
            raise StageError(
                str(prepared / "train" / "y.npy"),
                f"every training sample is of class {spec.classes[int(present[0])]!r}",
                "samples of at least two classes",
                "add data of other classes, or change prepare.split",
            )
        return cls(spec, **splits)


def load_batch(split: Split, index: np.ndarray | slice, fabric: Fabric) -> tuple[Tensor, Tensor]:
    """Load samples [B, *shape] and labels [B] of a split onto the device of `fabric`, and return both.

    Args:
        split: The split to read from.
        index: Indices of the samples in the split.
        fabric: The fabric; the tensors are created on its device.
    """
    return to_tensor(split.samples(index)).to(fabric.device), to_tensor(split.y[index]).to(fabric.device)


def to_tensor(values: np.ndarray) -> Tensor:
    """Return a copy of an array as a tensor. Without the copy, torch would warn about a read-only array."""
    return torch.from_numpy(np.array(values))


def split_batches(samples: int, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Divide the samples of a split randomly into batches for one epoch, and return the indices in each batch.

    Batch sizes differ by at most one. If all batches except the last one were full, the last batch could consist of a
    single sample, and batch norm cannot train on a single sample.

    Args:
        samples: Number of samples in the split.
        size: Maximum number of samples in a batch.
        seed: The seed of the run. Together with `epoch`, the seed determines the order of the samples.
        epoch: Number of the epoch, from 0.
    """
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    return np.array_split(order, math.ceil(samples / size))


def training_batches(data: Data, batch_size: int, max_values: int | None = None) -> Iterator[Tensor]:
    """Yield batches [B, *shape] of training samples in the order in which they are stored, without augmentation.

    Args:
        data: The prepared data.
        batch_size: Maximum number of samples in a batch.
        max_values: Maximum total number of values in all yielded samples; None for no limit. If the training split has
            more values, only evenly spaced samples of the split are yielded.
    """
    samples = len(data.train)
    if max_values is not None:
        samples = min(samples, max(1, max_values // math.prod(data.spec.shape)))
    index = np.linspace(0, len(data.train) - 1, samples).round().astype(np.int64)
    for begin in range(0, samples, batch_size):
        yield to_tensor(data.train.samples(index[begin : begin + batch_size]))
