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
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from stages.augment import augment
from stages.dataset import SPLITS, SampleSpec, Split
from stages.errors import ParameterError, StageError
from stages.files import sha256, write_bytes
from stages.networks import Network, serialise
from stages.params import Params
from stages.params.train import Optimiser, Train

# Threads change the order of sums, and so the last bits of a weight: a fixed number repeats, whatever the machine.
THREADS = 2
CODE = ("train.py", "compress.py", "distil.py", "prune.py", "fit.py", "augment.py", "dataset.py", "networks")

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Scores:
    """On one split. `loss` is the plain cross entropy; `f1_macro` is the mean over classes that occur."""

    loss: float
    accuracy: float
    f1_macro: float


@dataclass(frozen=True)
class Epoch:
    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_f1_macro: float
    learning_rate: float


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
        raise ParameterError("params.yaml: device", f"{params.device}: {reason}", "auto or cpu here") from None
    fabric.launch()
    return fabric


def resume_folder(stage: str, params: Params, inputs: list[Path], fabric: Fabric) -> Path:
    """Where this very run keeps what it resumes from: outside DVC's outs, which DVC removes before a run.

    The name is a digest of everything that makes the result, so that a stale checkpoint is never taken up.
    """
    here = Path(__file__).parent
    parts = [stage, str(params.seed), params.train.model_dump_json(), torch.__version__]
    if stage == "compress":
        parts.append(params.compress.model_dump_json())
    parts += [str(fabric.device.type), str(fabric.world_size)]
    parts += [sha256(path) for path in [*inputs, *sorted((here / name) for name in CODE)] if path.exists()]
    return Path(".work") / stage / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


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
            "params: train.batch_size",
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
    total = _summed(fabric, total)
    return float(total[0] / total[1]), rate


def split_batches(samples: int, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """All samples in the epoch's order, in batches of nearly equal size: a last one of 1 would break batch norm."""
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    return np.array_split(order, math.ceil(samples / size))


def load_batch(split: Split, index: np.ndarray | slice, fabric: Fabric) -> tuple[Tensor, Tensor]:
    return _tensor(split.samples(index)).to(fabric.device), _tensor(split.y[index]).to(fabric.device)


def _tensor(values: np.ndarray) -> Tensor:
    """A copy: what is mapped from a file is read-only, and torch warns of it."""
    return torch.from_numpy(np.array(values))


def make_optimiser(params: Optimiser, network: nn.Module) -> torch.optim.Optimizer:
    rate, decay = params.learning_rate, params.weight_decay
    if params.name == "sgd":
        return torch.optim.SGD(network.parameters(), lr=rate, weight_decay=decay, momentum=0.9)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[params.name]
    return kind(network.parameters(), lr=rate, weight_decay=decay)


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
    confusion, loss = _summed(fabric, confusion), _summed(fabric, loss)
    hit, total = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)
    f1 = (2 * hit / total.clamp_min(1))[total > 0]
    return Scores(float(loss / len(split)), float(hit.sum() / confusion.sum()), float(f1.mean()))


@torch.no_grad()
def all_logits(network: Network, split: Split, batch_size: int) -> np.ndarray:
    """Logits of the whole split in its order: [N, classes] float32."""
    network.eval()
    device = next(network.parameters()).device
    chunks = (split.samples(slice(begin, begin + batch_size)) for begin in range(0, len(split), batch_size))
    return np.concatenate([network(_tensor(x).to(device)).cpu().numpy() for x in chunks])


def training_batches(data: Data, batch_size: int) -> Iterator[Tensor]:
    """The training split in its order, unchanged."""
    for begin in range(0, len(data.train), batch_size):
        yield _tensor(data.train.samples(slice(begin, begin + batch_size)))


def _summed(fabric: Fabric, value: Tensor) -> Tensor:
    if fabric.world_size == 1:
        return value
    total: Any = fabric.all_reduce(value.to(fabric.device), reduce_op="sum")
    return total.cpu()


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


class Progress:
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

    def __enter__(self) -> Progress:
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
            self.bar.update(self.task, completed=done.epoch + 1, words=words)
        elif self.show and (time.monotonic() - self.said > 5 or done.epoch + 1 == self.epochs):
            self.said = time.monotonic()
            print(f"{self.title}: {words}", flush=True)


HISTORY = [field.name for field in fields(Epoch)]
