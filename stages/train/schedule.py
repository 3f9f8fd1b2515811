"""Compute the learning rate, find the best epoch, and decide when training stops."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stages.params.train import Train


@dataclass(frozen=True)
class Epoch:
    """The results of one completed epoch. Epochs are numbered from 0; `learning_rate` is the rate of the last batch.

    If a class has no validation sample, `validation_f1_macro` is undefined (None), and `validation_f1_partial` is the
    mean F1 score of the other classes. These are the same classes in every epoch, so the epochs can be compared.
    Otherwise `validation_f1_partial` is None.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_f1_macro: float | None
    learning_rate: float
    validation_f1_partial: float | None = None

    def score(self, metric: str) -> float:
        """Return the validation metric that determines the best epoch: "accuracy" or "f1_macro"."""
        if metric == "accuracy":
            return self.validation_accuracy
        score = self.validation_f1_partial if self.validation_f1_macro is None else self.validation_f1_macro
        assert score is not None
        return score


def learning_rate(params: Train, progress: float, history: list[Epoch]) -> float:
    """Return the learning rate, which rises linearly from 0 during the warm-up and then follows the schedule.

    Args:
        params: The parameters of training: the scheduler, the learning rate after the warm-up, the number of epochs.
        progress: Number of completed epochs, including the completed fraction of the current epoch; for example 2.5.
        history: The results of the completed epochs.
    """
    scheduler, rate = params.scheduler, params.optimiser.learning_rate
    if progress < scheduler.warmup_epochs:
        return rate * progress / scheduler.warmup_epochs
    if scheduler.name == "cosine":
        remaining = (params.epochs - progress) / (params.epochs - scheduler.warmup_epochs)
        return rate * (1 - math.cos(math.pi * remaining)) / 2
    if scheduler.name == "step":
        return rate * scheduler.factor ** (len(history) // scheduler.step_epochs)
    if scheduler.name == "plateau":
        return float(rate * scheduler.factor ** _plateaus(history, params.metric, scheduler.step_epochs))
    return rate


def _plateaus(history: list[Epoch], metric: str, patience: int) -> int:
    """Count how many times `patience` consecutive epochs passed without a new best epoch."""
    count, epochs_since_best = 0, 0
    for number in range(len(history)):
        epochs_since_best = 0 if best_epoch(history[: number + 1], metric) == number else epochs_since_best + 1
        if epochs_since_best == patience:
            count, epochs_since_best = count + 1, 0
    return count


def best_epoch(history: list[Epoch], metric: str) -> int:
    """Return the number of the epoch with the highest validation metric; the lower validation loss breaks a tie."""
    return max(range(len(history)), key=lambda i: (history[i].score(metric), -history[i].validation_loss))


def is_over(history: list[Epoch], params: Train) -> bool:
    """Return True if training must stop, because `early_stopping.patience` epochs passed without a new best epoch."""
    return bool(history) and len(history) - 1 - best_epoch(history, params.metric) >= params.early_stopping.patience
