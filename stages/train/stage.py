"""Train the network on the prepared data; keep the best epoch on the validation split.

Reads data/prepared. Writes models/trained/model.pt and reports/train/ (DVCLive's files, history.csv,
summary.json). A run that was killed goes on from its last whole epoch, kept in .work/train/. With
`torchrun --nproc-per-node N -m stages.train` the same work is spread over N processes.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import command
from stages.core.files import new_directory, sha256, write_json, write_text
from stages.params import Params, load

if TYPE_CHECKING:
    from stages.train.batches import Scores
    from stages.train.schedule import Epoch

LIVE_NAMES = {  # DVCLive makes a folder of what stands before the slash
    "train_loss": "train/loss",
    "validation_loss": "validation/loss",
    "validation_accuracy": "validation/accuracy",
    "validation_f1_macro": "validation/f1_macro",
}
FITTED_VALUES = 20_000_000  # preprocessing is fitted to so many values of the training split at most: 160 MB
PREPARED, MODEL, REPORT = Path("data/prepared"), Path("models/trained"), Path("reports/train")


def main() -> None:
    command.parser("train", __doc__).parse_args()
    train(load())


def train(params: Params) -> None:
    command.make_idle_threads_sleep()
    import torch

    from stages import networks
    from stages.train import augment, batches, loop
    from stages.train.schedule import best_epoch

    data = batches.Data.open(PREPARED)
    augment.check(params.train.augment, data.spec)
    fabric = loop.start(params)
    torch.manual_seed(params.seed)
    network = networks.build(data.spec, params.train)
    network.preprocess.fit(batches.training_batches(data, params.train.batch_size, FITTED_VALUES))
    folder = loop.resume_folder("train", params, [PREPARED], fabric)
    objective = batches.cross_entropy(data, params.train, fabric.device)
    with loop.EpochProgress(f"train {params.train.network}", params.train.epochs, fabric.is_global_zero) as progress:
        log = Log(folder / "live", enabled=fabric.is_global_zero)
        history = loop.fit(
            fabric,
            network,
            data,
            params.train,
            objective,
            seed=params.seed,
            checkpoint=folder / "last.pt",
            on_epoch=lambda epoch: both(epoch, progress, log),
        )
        log.end()
    validation, test = (
        batches.evaluate(fabric, network, split, params.train.batch_size) for split in (data.validation, data.test)
    )
    if not fabric.is_global_zero:
        return
    best = best_epoch(history, params.train.metric)
    report = summary(params, network, history, best, validation, test)
    # Nested, so that neither takes its place before both are whole.
    with new_directory(REPORT) as reports, new_directory(MODEL) as models:
        networks.save(network, models / "model.pt")
        shutil.copytree(folder / "live", reports, dirs_exist_ok=True)
        write_text(reports / "history.csv", history_csv(history))
        write_json(reports / "summary.json", {**report, "model_sha256": sha256(models / "model.pt")})
    shutil.rmtree(folder)
    print(
        f"{params.train.network}, {report['parameters']} parameters: best epoch {best + 1} of {len(history)}, "
        f"test accuracy {test.accuracy:.4f}, macro F1 {test.f1_macro:.4f}"
    )


def both(epoch: Epoch, progress: Callable[[Epoch], None], log: Callable[[Epoch], None]) -> None:
    progress(epoch)
    log(epoch)


class Log:
    """DVCLive's metrics, epoch by epoch; a resumed run writes the earlier epochs anew."""

    def __init__(self, folder: Path, enabled: bool) -> None:
        self.live: Any = None
        if enabled:
            from dvclive.live import Live

            shutil.rmtree(folder, ignore_errors=True)
            self.live = Live(str(folder), save_dvc_exp=False, dvcyaml=None, report=None)

    def __call__(self, epoch: Epoch) -> None:
        if self.live:
            for name, value in asdict(epoch).items():
                if name != "epoch":
                    self.live.log_metric(LIVE_NAMES.get(name, name), value)
            self.live.next_step()

    def end(self) -> None:
        if self.live:
            self.live.end()


def history_csv(history: list[Epoch]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(asdict(history[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(epoch) for epoch in history)
    return stream.getvalue()


def summary(
    params: Params, network: Any, history: list[Epoch], best: int, validation: Scores, test: Scores
) -> dict[str, Any]:
    parameters = sum(weight.numel() for weight in network.parameters())
    return {
        "network": params.train.network,
        "parameters": parameters,
        "size_bytes": parameters * 4,
        "best_epoch": best,
        "epochs": len(history),
        "metric": params.train.metric,
        "validation": asdict(validation),
        "test": asdict(test),
    }
