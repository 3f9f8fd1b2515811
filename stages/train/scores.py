"""Compute a network's scores and logits on a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.nn import functional as F

from stages.core.dataset import Split
from stages.metrics.confusion import averages
from stages.networks import Network
from stages.train.batches import load_batch, to_tensor
from stages.train.fabric import sum_over_ranks


@dataclass(frozen=True)
class Scores:
    """Scores of a network on one split.

    `loss` is the mean cross entropy, without class weights or label smoothing. `f1_macro` is the mean F1 score of the
    classes that occur in the split or in the predictions.
    """

    loss: float
    accuracy: float
    f1_macro: float


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
    return Scores(float(loss / len(split)), accuracy, float(averages(confusion.numpy())["f1_macro"]))


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
