"""Train the network on the prepared data, and keep the weights of the epoch that is best on the validation split.

Reads data/prepared. Writes models/trained/model.pt, reports/train/ (DVCLive's files, history.csv, summary.json) and
reports/durations/train.json. A run that was killed resumes after its last completed epoch, from a checkpoint in
.work/train/. `torchrun --nproc-per-node N -m stages.train` divides the work among N processes.
"""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import command
from stages.core.files import new_directory, sha256, write_json, write_text
from stages.params import Params, load

if TYPE_CHECKING:
    from stages.networks import Network
    from stages.train.schedule import Epoch
    from stages.train.scores import Scores

LIVE_NAMES = {  # DVCLive creates a folder for the part before the slash
    "train_loss": "train/loss",
    "validation_loss": "validation/loss",
    "validation_accuracy": "validation/accuracy",
    "validation_f1_macro": "validation/f1_macro",
    "validation_f1_partial": "validation/f1_partial",
}
# Preprocessing is fitted to at most this many values of the training split, which take 160 MB as float64.
MAX_FITTED_VALUES = 20_000_000
PREPARED, MODEL, REPORT = Path("data/prepared"), Path("models/trained"), Path("reports/train")
DURATION = Path("reports/durations/train.json")


def main() -> None:
    command.parser("train", __doc__).parse_args()
    train(load())


def train(params: Params) -> None:
    """Train the network that `params.train` describes, and write the network and the reports on its training."""
    command.make_idle_threads_sleep()
    import torch

    from stages import networks
    from stages.train import augment, batches
    from stages.train.checkpoints import checkpoint_folder
    from stages.train.duration import Stopwatch, write_duration
    from stages.train.fabric import start_fabric
    from stages.train.loop import train_network
    from stages.train.objective import cross_entropy
    from stages.train.progress import EpochProgress
    from stages.train.scores import evaluate

    data = batches.Data.open(PREPARED)
    augment.check_parameters(params.train.augment, data.spec)
    fabric = start_fabric(params)
    torch.manual_seed(params.seed)
    network = networks.build(data.spec, params.train)
    network.preprocess.fit_to_samples(batches.training_batches(data, params.train.batch_size, MAX_FITTED_VALUES))
    folder = checkpoint_folder("train", params, [PREPARED], fabric)
    objective = cross_entropy(data, params.train, fabric.device)
    stopwatch = Stopwatch(folder / "seconds")
    with EpochProgress(f"train {params.train.network}", params.train.epochs, fabric.is_global_zero) as progress:
        log = Log(folder / "live", enabled=fabric.is_global_zero)

        def report_epoch(epoch: Epoch) -> None:
            progress(epoch)
            log(epoch)
            if fabric.is_global_zero:
                stopwatch.save()

        history = train_network(
            fabric,
            network,
            data,
            params.train,
            objective,
            seed=params.seed,
            checkpoint=folder / "last.pt",
            on_epoch=report_epoch,
        )
        log.end()
    seconds = stopwatch.seconds
    scores = {
        name: evaluate(fabric, network, split, params.train.batch_size)
        for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test))
    }
    if not fabric.is_global_zero:
        return
    report = summary(params, network, history, scores)
    # Nested, so that neither folder is replaced before both are complete.
    with new_directory(REPORT) as reports, new_directory(MODEL) as models:
        networks.save(network, models / "model.pt")
        shutil.copytree(folder / "live", reports, dirs_exist_ok=True)
        write_text(reports / "history.csv", history_csv(history))
        write_json(reports / "summary.json", {**report, "model_sha256": sha256(models / "model.pt")})
    write_duration(DURATION, seconds)
    shutil.rmtree(folder)
    print(
        f"{params.train.network}, {report['parameters']} parameters: best epoch {report['best_epoch'] + 1} of "
        f"{len(history)}, test accuracy {scores['test'].accuracy:.4f}, macro F1 {scores['test'].describe_f1()}"
    )
    if scores["validation"].partial:
        print(f"validation: macro F1 {scores['validation'].describe_f1()}")


class Log:
    """Logs the metrics of every epoch with DVCLive. A resumed run logs the earlier epochs again."""

    def __init__(self, folder: Path, enabled: bool) -> None:
        """Empty `folder` and start a log in it. If `enabled` is false, do nothing; the log then writes no files."""
        self.live: Any = None
        if enabled:
            from dvclive.live import Live

            shutil.rmtree(folder, ignore_errors=True)
            self.live = Live(str(folder), save_dvc_exp=False, dvcyaml=None, report=None)

    def __call__(self, epoch: Epoch) -> None:
        """Log the results of a completed epoch."""
        if self.live:
            for name, value in asdict(epoch).items():
                if name != "epoch" and value is not None:
                    self.live.log_metric(LIVE_NAMES.get(name, name), value)
            self.live.next_step()

    def end(self) -> None:
        """Let DVCLive write its final files."""
        if self.live:
            self.live.end()


def history_csv(history: list[Epoch]) -> str:
    """Return the results of the epochs as CSV with a header line."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(asdict(history[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(epoch) for epoch in history)
    return stream.getvalue()


def summary(params: Params, network: Network, history: list[Epoch], scores: dict[str, Scores]) -> dict[str, Any]:
    """Return the content of reports/train/summary.json, without the digest of the network's file.

    In this report, `parameters` is the number of the network's weights, and `size_bytes` is their size as float32.

    Args:
        params: All parameters of the pipeline. Only `train.network` and `train.metric` are used.
        network: The trained network.
        history: The results of every epoch.
        scores: Scores of the trained network, by split.
    """
    from stages.train.schedule import best_epoch

    parameters = sum(weight.numel() for weight in network.parameters())
    return {
        "network": params.train.network,
        "parameters": parameters,
        "size_bytes": parameters * 4,
        "best_epoch": best_epoch(history, params.train.metric),
        "epochs": len(history),
        "metric": params.train.metric,
        **{split: asdict(values) for split, values in scores.items()},
    }
