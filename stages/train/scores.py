"""Compute a network's scores and logits on a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.nn import functional as F

from stages.core.dataset import Split
from stages.metrics.confusion import averages, name_classes, supported
from stages.networks import Network
from stages.train.batches import load_batch, to_tensor
from stages.train.fabric import sum_over_ranks


@dataclass(frozen=True)
class PartialScores:
    """The mean F1 score over the classes that have a sample in a split, if a class has none."""

    classes: list[str]  # the classes that the mean is over
    absent: list[str]  # the classes without a sample
    f1_macro: float


@dataclass(frozen=True)
class Scores:
    """Scores of a network on one split.

    `loss` is the mean cross entropy, without class weights or label smoothing. `f1_macro` is the mean F1 score of all
    classes. If a class has no sample in the split, it is undefined (None), and `partial` has the mean over the others.
    """

    loss: float
    accuracy: float
    f1_macro: float | None
    partial: PartialScores | None = None

    def describe_f1(self) -> str:
        """Return the macro F1 score as text. If it is undefined, the text names the classes of the partial mean."""
        if self.partial is None:
            return f"{self.f1_macro:.4f}"
        absent, over = ", ".join(self.partial.absent), name_classes(self.partial.classes, self.partial.absent)
        return f"undefined, because no sample is of class {absent} ({self.partial.f1_macro:.4f} over {over})"


@torch.no_grad()
def evaluate(fabric: Fabric, network: Network, split: Split, batch_size: int) -> Scores:
    """Return the network's scores on a split.

    Each process evaluates a part of the samples, and all processes return the scores of the whole split.

    Args:
        fabric: The device and the processes.
        network: The network, which is set to evaluation mode.
        split: The split. Its samples are not augmented.
        batch_size: Maximum number of samples in a batch.
    """
    network.eval()
    classes = len(network.spec.classes)
    confusion = torch.zeros(classes, classes, dtype=torch.float64)
    loss = torch.zeros(1, dtype=torch.float64)
    own = np.arange(fabric.global_rank, len(split), fabric.world_size)
    for begin in range(0, len(own), batch_size):
        x, y = load_batch(split, own[begin : begin + batch_size], fabric)
        logits = network(x)
        loss += F.cross_entropy(logits, y, reduction="sum").double().cpu()
        pairs = (y * classes + logits.argmax(1)).cpu()
        confusion += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    confusion, loss = sum_over_ranks(fabric, confusion), sum_over_ranks(fabric, loss)
    accuracy = float(confusion.diagonal().sum() / confusion.sum())
    counts = confusion.numpy()
    over = supported(counts)
    f1_macro = float(averages(counts, over)["f1_macro"])
    if over.all():
        return Scores(float(loss / len(split)), accuracy, f1_macro)
    names = network.spec.classes
    present, absent = ([names[k] for k in np.flatnonzero(chosen)] for chosen in (over, ~over))
    return Scores(float(loss / len(split)), accuracy, None, PartialScores(present, absent, f1_macro))


@torch.no_grad()
def all_logits(network: Network, split: Split, batch_size: int) -> np.ndarray:
    """Return the network's logits for all samples of a split, in the split's order: [N, classes] float32.

    Args:
        network: The network, which is set to evaluation mode.
        split: The split. Its samples are not augmented.
        batch_size: Maximum number of samples in a batch.
    """
    network.eval()
    device = next(network.parameters()).device
    chunks = (split.samples(slice(begin, begin + batch_size)) for begin in range(0, len(split), batch_size))
    return np.concatenate([network(to_tensor(x).to(device)).cpu().numpy() for x in chunks])
