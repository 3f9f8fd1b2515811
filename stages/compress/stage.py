"""Compress the trained network: distil it, prune whole channels, fine-tune. Each step is enabled by its parameters.

Reads data/prepared and models/trained. Writes models/compressed/model.pt, models/reference.npz (the compressed
network's logits on the validation and test splits), reports/compress.json and reports/durations/compress.json. A run
that was killed resumes after its last completed epoch, from a checkpoint in .work/compress/.
"""

from __future__ import annotations

import io
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import command
from stages.core.files import new_directory, sha256, write_bytes, write_json
from stages.params import Params, load
from stages.params.train import Train

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from stages.networks import Network
    from stages.train.batches import Data
    from stages.train.duration import Stopwatch
    from stages.train.objective import Objective
    from stages.train.schedule import Epoch

PREPARED, TRAINED = Path("data/prepared"), Path("models/trained")
MODEL, REFERENCE, REPORT = Path("models/compressed"), Path("models/reference.npz"), Path("reports/compress.json")
DURATION = Path("reports/durations/compress.json")


def main() -> None:
    command.parser("compress", __doc__).parse_args()
    compress(load())


def compress(params: Params) -> None:
    """Run the compression steps that `params.compress` enables, and write the compressed network and a report."""
    command.make_idle_threads_sleep()
    from stages import networks
    from stages.train import batches
    from stages.train.checkpoints import checkpoint_folder
    from stages.train.duration import Stopwatch, write_duration
    from stages.train.fabric import start_fabric
    from stages.train.scores import all_logits

    data = batches.Data.open(PREPARED)
    network = networks.load(TRAINED / "model.pt")
    fabric = start_fabric(params)
    network.to(fabric.device)
    folder = checkpoint_folder("compress", params, [PREPARED, TRAINED], fabric)
    compression = Compression(fabric, data, params, folder, Stopwatch(folder / "seconds"))
    steps = [compression.measure("trained", network)]
    if params.compress.distil.enabled:
        network = compression.distil(network)
        steps.append(compression.measure("distil", network))
    if params.compress.prune.enabled:
        network = compression.prune(network)
        steps.append(compression.measure("prune", network))
        if params.compress.prune.finetune_epochs:
            network = compression.finetune(network)
            steps.append(compression.measure("finetune", network))
    if not fabric.is_global_zero:
        return
    seconds = compression.stopwatch.seconds
    size = params.train.batch_size
    logits = {name: all_logits(network, getattr(data, name), size) for name in ("validation", "test")}
    report = summary(steps)
    with new_directory(MODEL) as models:
        networks.save(network, models / "model.pt")
        write_bytes(REFERENCE, as_npz(logits))
        digests = {"trained_sha256": sha256(TRAINED / "model.pt"), "model_sha256": sha256(models / "model.pt")}
        write_json(REPORT, {**report, **digests})
    write_duration(DURATION, seconds)
    shutil.rmtree(folder, ignore_errors=True)
    print(
        f"compressed {report['ratio']:.2f} times: {steps[0]['parameters']} -> {steps[-1]['parameters']} parameters; "
        f"test accuracy {steps[0]['accuracy']:.4f} -> {steps[-1]['accuracy']:.4f}, retention {report['retention']:.4f}"
    )


@dataclass(frozen=True)
class Compression:
    """The compression steps, as methods that share the device, the data, the parameters and the checkpoint folder.

    `folder` holds the checkpoints of this run, and `stopwatch` measures its duration.
    """

    fabric: Fabric
    data: Data
    params: Params
    folder: Path
    stopwatch: Stopwatch

    def distil(self, teacher: Network) -> Network:
        """Train and return a smaller network that reproduces the outputs of `teacher`."""
        from stages.compress import distil

        params = self.params.compress.distil
        student = distil.make_student(teacher, self.params.train, params.student_scale, self.params.seed)
        recipe = self.params.train.model_copy(update={"epochs": params.epochs})
        self._train("distil", student, recipe, distil.distillation(teacher, params, self._objective()))
        return student

    def prune(self, network: Network) -> Network:
        """Return a copy of `network` without the least important channels."""
        from stages.compress.prune import prune

        sparsity = self.params.compress.prune.sparsity
        pruned = prune(self.fabric, network, self.data, self._objective(), sparsity, self.params.seed)
        return pruned.to(self.fabric.device)

    def finetune(self, network: Network) -> Network:
        """Fine-tune a pruned network in place, and return the same network."""
        params, train = self.params.compress.prune, self.params.train
        recipe = train.model_copy(
            update={
                "epochs": params.finetune_epochs,
                "optimiser": train.optimiser.model_copy(update={"learning_rate": params.learning_rate}),
            }
        )
        self._train("finetune", network, recipe, self._objective())
        return network

    def measure(self, name: str, network: Network) -> dict[str, Any]:
        """Return the number of parameters, the size and the test scores of `network` after the step `name`."""
        from stages.train.scores import evaluate

        scores = evaluate(self.fabric, network, self.data.test, self.params.train.batch_size)
        parameters = sum(weight.numel() for weight in network.parameters())
        return {
            "name": name,
            "parameters": parameters,
            "size_bytes": parameters * 4,
            "accuracy": scores.accuracy,
            "f1_macro": scores.f1_macro,
            "partial": asdict(scores.partial) if scores.partial else None,
        }

    def _objective(self) -> Objective:
        from stages.train.objective import cross_entropy

        return cross_entropy(self.data, self.params.train, self.fabric.device)

    def _train(self, name: str, network: Network, recipe: Train, objective: Objective) -> None:
        from stages.train.loop import train_network
        from stages.train.progress import EpochProgress

        recipe = shorten_warmup(recipe)
        with EpochProgress(name, recipe.epochs, self.fabric.is_global_zero) as progress:

            def report_epoch(epoch: Epoch) -> None:
                progress(epoch)
                if self.fabric.is_global_zero:
                    self.stopwatch.save()

            train_network(
                self.fabric,
                network,
                self.data,
                recipe,
                objective,
                seed=self.params.seed,
                checkpoint=self.folder / name / "last.pt",
                on_epoch=report_epoch,
            )


def shorten_warmup(recipe: Train) -> Train:
    """Return a copy of the training parameters in which the warm-up ends before the last epoch.

    The number of warm-up epochs is reduced only if it is too large.
    """
    warmup = min(recipe.scheduler.warmup_epochs, recipe.epochs - 1)
    return recipe.model_copy(update={"scheduler": recipe.scheduler.model_copy(update={"warmup_epochs": warmup})})


def summary(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of reports/compress.json, without the digests of the files.

    `ratio` is the size before compression divided by the size after compression. `drop` is the test accuracy before
    compression minus the accuracy after compression. `retention` is the test accuracy after compression divided by the
    accuracy before compression.

    Args:
        steps: The measurements before compression and after each step.
    """
    before, after = steps[0], steps[-1]
    return {
        "steps": steps,
        "ratio": before["size_bytes"] / after["size_bytes"],
        "drop": before["accuracy"] - after["accuracy"],
        "retention": after["accuracy"] / before["accuracy"] if before["accuracy"] else 0.0,
    }


def as_npz(arrays: dict[str, Any]) -> bytes:
    """Return the content of a .npz file with the arrays. Equal arrays give equal bytes: numpy writes no timestamps."""
    import numpy as np

    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()
