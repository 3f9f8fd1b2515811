"""One training loop for training, distillation and fine-tuning.

All randomness of an epoch comes from (seed, epoch, rank), and the learning rate and early stopping are functions
of the epochs before. So the checkpoint holds weights, the optimiser's state and the history, and a run that was
killed goes on to the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stages.core.errors import ParameterError, StageError
from stages.core.files import sha256, write_bytes
from stages.networks import Network, serialise
from stages.params import Params, locate_parameter
from stages.params.train import Optimiser, Train
from stages.train.augment import augment
from stages.train.batches import Data, Objective, evaluate, load_batch, summed, training_batches
from stages.train.schedule import Epoch, best_epoch, is_over, learning_rate

# Threads change the order of sums, and so the last bits of a weight: a fixed number repeats, whatever the machine.
THREADS = 2
# The code that decides what a training run gives, below `stages/`: a checkpoint of other code is not resumed.
CODE = (
    "compress/distil.py",
    "compress/prune.py",
    "compress/stage.py",
    "core/dataset.py",
    "metrics/confusion.py",
    "networks/__init__.py",
    "networks/base.py",
    "networks/cnn.py",
    "networks/preprocess.py",
    "networks/rnn.py",
    "networks/transformer.py",
    "train/augment.py",
    "train/batches.py",
    "train/loop.py",
    "train/schedule.py",
    "train/stage.py",
)


def start(params: Params) -> Fabric:
    """Devices as `params.device` and torchrun's environment say; fixed threads, deterministic algorithms only."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its sums only with this
    local, world = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    try:
        fabric = Fabric(
            accelerator=params.device,
            devices=local,
            num_nodes=world // local,
            strategy="ddp" if world > 1 else "auto",
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(
            locate_parameter("device"), f"found {params.device!r}: {reason}", "auto or cpu here", "set device: auto"
        ) from None
    fabric.launch()
    return fabric


def resume_folder(stage: str, params: Params, inputs: list[Path], fabric: Fabric) -> Path:
    """Where this very run keeps what it resumes from: outside DVC's outs, which DVC removes before a run.

    The name is a digest of everything that makes the result, so that a stale checkpoint is never taken up. Folders
    of other digests are of runs that were killed and then given up for this one: they are removed, or every change
    after a kill would leave its weights and optimiser's state on the disk for ever. (A run that had ended left none;
    going back to it is DVC's run cache's work.)
    """
    here = Path(__file__).parents[1]
    parts = [stage, str(params.seed), params.train.model_dump_json(), torch.__version__]
    if stage == "compress":
        parts.append(params.compress.model_dump_json())
    parts += [str(fabric.device.type), str(fabric.world_size)]
    parts += [sha256(path) for path in [*inputs, *(here / name for name in CODE)]]  # one that is missing is an error
    folder = Path(".work") / stage / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    if fabric.is_global_zero:
        for other in set(folder.parent.glob("*/")) - {folder}:
            shutil.rmtree(other)
    return folder


def fit(
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
    """Train `network` in place; at the end it holds the weights of the best epoch on the validation split.

    `objective(logits, x, y)` gives the loss of a batch. `on_epoch` hears of every epoch, also of those that a
    killed run had done. Raises StageError when the loss is not finite.
    """
    smallest = min(map(len, split_batches(len(data.train), params.batch_size, seed, 0)))
    if smallest < fabric.world_size:
        raise ParameterError(
            locate_parameter("train.batch_size"),
            f"found {params.batch_size}, which makes batches of {smallest} for {fabric.world_size} processes",
            "at least one sample for each process",
            "raise it, or start fewer processes",
        )
    network.to(fabric.device)
    model: Any = fabric.setup_module(network)
    optimiser: Any = fabric.setup_optimizers(make_optimiser(params.optimiser, network))
    history, best = _resume(checkpoint, network, optimiser)
    for done in history:
        on_epoch(done)
    while len(history) < params.epochs and not is_over(history, params):
        epoch = len(history)
        loss, rate = _train_epoch(fabric, model, optimiser, data, params, objective, seed, history)
        if not math.isfinite(loss):
            raise _diverged(loss, epoch, data, params)
        _same_buffers(fabric, network)
        scores = evaluate(fabric, network, data.validation, params.batch_size)
        history.append(Epoch(epoch, loss, scores.loss, scores.accuracy, scores.f1_macro, rate))
        if best_epoch(history, params.metric) == epoch:
            best = _copy(network)
        if fabric.is_global_zero:
            state = {"history": [astuple(each) for each in history], "weights": network.state_dict()}
            write_bytes(checkpoint, serialise({**state, "best": best, "optimiser": optimiser.state_dict()}))
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
    """One pass over the training split in an order of its own. Mean loss, and the last learning rate."""
    epoch, rate = len(history), 0.0
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, fabric.global_rank]).generate_state(1)[0]))
    model.train()
    total = torch.zeros(2, dtype=torch.float64)
    batches = split_batches(len(data.train), params.batch_size, seed, epoch)
    for number, batch in enumerate(batches, start=1):
        rate = learning_rate(params, epoch + number / len(batches), history)
        for group in optimiser.param_groups:
            group["lr"] = rate
        mine = np.array_split(batch, fabric.world_size)[fabric.global_rank]
        x, y = load_batch(data.train, mine, fabric)
        x = augment(x, data.spec, params.augment)
        loss = objective(model(x), x, y)
        optimiser.zero_grad()
        # Gradients are averaged over ranks, whose shares of the batch may differ by one sample.
        fabric.backward(loss * (len(mine) * fabric.world_size / len(batch)))
        optimiser.step()
        total += torch.tensor([loss.item() * len(y), len(y)], dtype=torch.float64)
    total = summed(fabric, total)
    return float(total[0] / total[1]), rate


def split_batches(samples: int, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """All samples in the epoch's order, in batches of nearly equal size: a last one of 1 would break batch norm."""
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    return np.array_split(order, math.ceil(samples / size))


def make_optimiser(params: Optimiser, network: nn.Module) -> torch.optim.Optimizer:
    rate, decay = params.learning_rate, params.weight_decay
    if params.name == "sgd":
        return torch.optim.SGD(network.parameters(), lr=rate, weight_decay=decay, momentum=0.9)
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[params.name]
    return kind(network.parameters(), lr=rate, weight_decay=decay)


def _same_buffers(fabric: Fabric, network: nn.Module) -> None:
    """Batch norm counts what its own rank saw; evaluate, and keep, what rank 0 saw."""
    if fabric.world_size > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    """state_dict() refers to the weights, which go on changing; this does not."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _resume(path: Path, network: nn.Module, optimiser: Any) -> tuple[list[Epoch], dict[str, Tensor]]:
    if not path.exists():
        return [], _copy(network)
    state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    network.load_state_dict(state["weights"])
    optimiser.load_state_dict(state["optimiser"])
    return [Epoch(*values) for values in state["history"]], state["best"]


def _diverged(loss: float, epoch: int, data: Data, params: Train) -> StageError:
    for number, batch in enumerate(training_batches(data, 1024)):
        bad = np.flatnonzero(~np.isfinite(batch.numpy()).reshape(len(batch), -1).all(axis=1))
        if len(bad):
            where = f"data/prepared/train, sample {number * 1024 + int(bad[0])}"
            return StageError(where, "holds NaN or infinity", "finite values", "mend prepare.missing, or the data")
    rate = params.optimiser.learning_rate
    return StageError(
        f"epoch {epoch + 1}: training loss",
        f"found {loss} with learning_rate {rate}",
        "a finite number",
        f"lower learning_rate, for instance to {rate / 10:g}",
    )


class EpochProgress:
    """Epoch by epoch: a bar on a terminal, else a line at most every five seconds and for the last epoch."""

    def __init__(self, title: str, epochs: int, show: bool) -> None:
        self.title, self.epochs, self.show = title, epochs, show
        self.said = 0.0
        self.bar: Any = None
        if show and sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                "{task.description}", BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn()
            )
            self.task = self.bar.add_task(title, total=epochs, words="")

    def __enter__(self) -> EpochProgress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, done: Epoch) -> None:
        words = (
            f"epoch {done.epoch + 1}/{self.epochs}  loss {done.train_loss:.4f}  validation: loss "
            f"{done.validation_loss:.4f} accuracy {done.validation_accuracy:.4f} F1 {done.validation_f1_macro:.4f}"
        )
        if self.bar:
            short = f"{done.epoch + 1}/{self.epochs} loss {done.train_loss:.3f} accuracy {done.validation_accuracy:.3f}"
            self.bar.update(self.task, completed=done.epoch + 1, words=short)
        elif self.show and (time.monotonic() - self.said > 5 or done.epoch + 1 == self.epochs):
            self.said = time.monotonic()
            print(f"{self.title}: {words}", flush=True)
