"""The training loop, which training, distillation and fine-tuning share.

The random numbers of an epoch depend only on the seed, the epoch and the rank of the process. The learning rate and
early stopping depend only on the parameters and on earlier epochs. A checkpoint contains the weights, the optimiser's
state and the results of all completed epochs. Therefore a run that was killed and resumed gives the same bytes as a run
without an interruption.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from stages.core.errors import ParameterError, StageError
from stages.networks import Network
from stages.params import locate_parameter
from stages.params.train import Optimiser, Train
from stages.train.augment import augment
from stages.train.batches import Data, load_batch, split_batches, training_batches
from stages.train.checkpoints import copy_weights, load_checkpoint, save_checkpoint
from stages.train.fabric import sum_over_ranks
from stages.train.objective import Objective
from stages.train.schedule import Epoch, best_epoch, is_over, learning_rate
from stages.train.scores import evaluate


def train_network(
    fabric: Fabric,
    network: Network,
    data: Data,
    params: Train,
    objective: Objective,
    *,
    seed: int,
    checkpoint: Path,
    on_epoch: Callable[[Epoch], None],
) -> list[Epoch]:
    """Train a network in place. At the end, the network has the weights of the epoch with the best validation score.

    Args:
        fabric: The device and the processes.
        network: The network, changed in place.
        data: The prepared data.
        params: The parameters of training: epochs, optimiser, schedule, augmentation, early stopping.
        objective: Function that computes the loss of a batch from the batch's logits, samples and labels.
        seed: Seed for the order of the samples, for their augmentation and for dropout.
        checkpoint: The checkpoint file, which is written after each epoch. If the file exists, the run resumes from it.
        on_epoch: Function that is called with the results of each completed epoch. If the run is resumed, the function
            is also called for the epochs that were completed earlier.

    Returns:
        The results of every epoch, in order.

    Raises:
        ParameterError: A batch has fewer samples than there are processes.
        StageError: The training loss is not finite.
    """
    smallest = min(map(len, split_batches(len(data.train), params.batch_size, seed, 0)))
    if smallest < fabric.world_size:
        raise ParameterError(
            locate_parameter("train.batch_size"),
            f"found {params.batch_size}, with which the smallest batch has size {smallest}, "
            f"but there are {fabric.world_size} processes",
            "at least one sample for each process in every batch",
            "raise train.batch_size, or start fewer processes",
        )
    network.to(fabric.device)
    model: Any = fabric.setup_module(network)
    optimiser: Any = fabric.setup_optimizers(make_optimiser(params.optimiser, network))
    history, best = load_checkpoint(checkpoint, network, optimiser)
    for epoch in history:
        on_epoch(epoch)
    while len(history) < params.epochs and not is_over(history, params):
        number = len(history)
        loss, rate = _train_epoch(fabric, model, optimiser, data, params, objective, seed, history)
        if not math.isfinite(loss):
            raise _explain_divergence(loss, number, data, params)
        _share_buffers(fabric, network)
        scores = evaluate(fabric, network, data.validation, params.batch_size)
        partial = scores.partial.f1_macro if scores.partial else None
        history.append(Epoch(number, loss, scores.loss, scores.accuracy, scores.f1_macro, rate, partial))
        if best_epoch(history, params.metric) == number:
            best = copy_weights(network)
        if fabric.is_global_zero:
            save_checkpoint(checkpoint, network, optimiser, history, best)
        on_epoch(history[-1])
    network.load_state_dict(best)
    network.eval()
    return history


def _train_epoch(
    fabric: Fabric,
    model: Any,
    optimiser: Any,
    data: Data,
    params: Train,
    objective: Objective,
    seed: int,
    history: list[Epoch],
) -> tuple[float, float]:
    """Train for one epoch; return the mean loss over the training split and the learning rate of the last batch."""
    epoch, rate = len(history), 0.0
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, fabric.global_rank]).generate_state(1)[0]))
    model.train()
    total = torch.zeros(2, dtype=torch.float64)
    batches = split_batches(len(data.train), params.batch_size, seed, epoch)
    for number, batch in enumerate(batches, start=1):
        rate = learning_rate(params, epoch + number / len(batches), history)
        for group in optimiser.param_groups:
            group["lr"] = rate
        own = np.array_split(batch, fabric.world_size)[fabric.global_rank]
        x, y = load_batch(data.train, own, fabric)
        x = augment(x, data.spec, params.augment)
        loss = objective(model(x), x, y)
        optimiser.zero_grad()
        # Gradients are averaged over ranks, but some ranks have one more sample than others. The factor corrects this.
        fabric.backward(loss * (len(own) * fabric.world_size / len(batch)))
        optimiser.step()
        total += torch.tensor([loss.item() * len(y), len(y)], dtype=torch.float64)
    total = sum_over_ranks(fabric, total)
    return float(total[0] / total[1]), rate


def make_optimiser(params: Optimiser, network: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser that the parameters select, for all weights of the network."""
    rate, decay = params.learning_rate, params.weight_decay
    if params.name == "sgd":
        return torch.optim.SGD(network.parameters(), lr=rate, weight_decay=decay, momentum=0.9)
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[params.name]
    return kind(network.parameters(), lr=rate, weight_decay=decay)


def _share_buffers(fabric: Fabric, network: nn.Module) -> None:
    """Copy the network's buffers from rank 0 to all other ranks.

    The batch norm statistics in the buffers differ between ranks, because each rank trains on different samples.
    """
    if fabric.world_size > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _explain_divergence(loss: float, epoch: int, data: Data, params: Train) -> StageError:
    """Return the error for a loss that is not finite.

    The error names the first training sample that contains NaN or infinity. If there is no such sample, the error
    gives the learning rate.
    """
    for number, batch in enumerate(training_batches(data, 1024)):
        bad = np.flatnonzero(~np.isfinite(batch.numpy()).reshape(len(batch), -1).all(axis=1))
        if len(bad):
            where = f"data/prepared/train, sample {number * 1024 + int(bad[0])}"
            return StageError(
                where, "contains NaN or infinity", "finite values", "change prepare.missing, or fix the data"
            )
    rate = params.optimiser.learning_rate
    return StageError(
        f"epoch {epoch + 1}: training loss",
        f"found {loss} with learning_rate {rate}",
        "a finite number",
        f"lower learning_rate, for example to {rate / 10:g}",
    )
