"""The loss that training minimises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stages.params.train import Train
from stages.train.batches import Data

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits [B, classes], samples [B, ...], labels [B]) -> loss []


def class_weights(labels: np.ndarray, classes: int, params: Train) -> Tensor | None:
    """Return the weight of each class in the loss: [classes] float32, or None for equal weights.

    A balanced weight is inversely proportional to the number of samples of its class. The mean weight of all samples is
    1. A class without samples has weight 0.

    Args:
        labels: Class indices [N] of the training split.
        classes: Number of classes.
        params: The parameters of training. `class_weights` is "none" (equal weights) or "balanced".
    """
    if params.class_weights == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    weights = np.where(counts, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)
    return torch.tensor(weights, dtype=torch.float32)


def cross_entropy(data: Data, params: Train, device: torch.device) -> Objective:
    """Return the loss function: the cross entropy with class weights and label smoothing.

    Args:
        data: The prepared data. Class weights are computed from the labels of its training split.
        params: The parameters of training. Only `class_weights` and `label_smoothing` are used.
        device: The device that computes the loss.
    """
    weights = class_weights(np.asarray(data.train.y), len(data.spec.classes), params)
    weights = None if weights is None else weights.to(device)
    return lambda logits, _x, y: F.cross_entropy(logits, y, weight=weights, label_smoothing=params.label_smoothing)
