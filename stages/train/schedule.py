"""The epochs that were, and what follows from them: the learning rate, the best epoch, when to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stages.params.train import Train


@dataclass(frozen=True)
class Epoch:
    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_f1_macro: float
    learning_rate: float


def learning_rate(params: Train, progress: float, history: list[Epoch]) -> float:
    """The rate when `progress` epochs are done: linear warm-up, then the schedule that `params` names."""
    scheduler, rate = params.scheduler, params.optimiser.learning_rate
    if progress < scheduler.warmup_epochs:
        return rate * progress / scheduler.warmup_epochs
    if scheduler.name == "cosine":
        left = (params.epochs - progress) / (params.epochs - scheduler.warmup_epochs)
        return rate * (1 - math.cos(math.pi * left)) / 2
    if scheduler.name == "step":
        return rate * scheduler.factor ** (len(history) // scheduler.step_epochs)
    if scheduler.name == "plateau":
        return float(rate * scheduler.factor ** _plateaus(history, params.metric, scheduler.step_epochs))
    return rate


def _plateaus(history: list[Epoch], metric: str, patience: int) -> int:
    """How often `patience` epochs went by without a better one."""
    count, since = 0, 0
    for now in range(len(history)):
        since = 0 if best_epoch(history[: now + 1], metric) == now else since + 1
        if since == patience:
            count, since = count + 1, 0
    return count


def best_epoch(history: list[Epoch], metric: str) -> int:
    """The epoch with the highest validation metric; of equals the one with the lowest validation loss."""
    return max(
        range(len(history)),
        key=lambda i: (getattr(history[i], f"validation_{metric}"), -history[i].validation_loss),
    )


def is_over(history: list[Epoch], params: Train) -> bool:
    """Early stopping: `patience` epochs went by without a better one."""
    return bool(history) and len(history) - 1 - best_epoch(history, params.metric) >= params.early_stopping.patience
