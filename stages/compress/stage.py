"""Make the trained network smaller: distil, prune whole channels, fine-tune; each switched by parameters.

Reads data/prepared and models/trained. Writes models/compressed/model.pt, models/reference.npz (its logits on the
validation and test splits) and reports/compress.json. A run that was killed goes on from its last whole epoch,
kept in .work/compress/.
"""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import command
from stages.core.files import new_directory, sha256, write_bytes, write_json
from stages.params import Params, load
from stages.params.train import Train

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from stages.networks import Network
    from stages.train.batches import Data, Objective

PREPARED, TRAINED = Path("data/prepared"), Path("models/trained")
MODEL, REFERENCE, REPORT = Path("models/compressed"), Path("models/reference.npz"), Path("reports/compress.json")


def main() -> None:
    command.parser("compress", __doc__).parse_args()
    compress(load())


def compress(params: Params) -> None:
    command.make_idle_threads_sleep()
    from stages import networks
    from stages.train import batches, loop

    data = batches.Data.open(PREPARED)
    network = networks.load(TRAINED / "model.pt")
    fabric = loop.start(params)
    network.to(fabric.device)
    folder = loop.resume_folder("compress", params, [PREPARED, TRAINED], fabric)
    work = Work(fabric, data, params, folder)
    steps = [work.measure("trained", network)]
    if params.compress.distil.enabled:
        network = work.distil(network)
        steps.append(work.measure("distil", network))
    if params.compress.prune.enabled:
        network = work.prune(network)
        steps.append(work.measure("prune", network))
        if params.compress.prune.finetune_epochs:
            network = work.finetune(network)
            steps.append(work.measure("finetune", network))
    if not fabric.is_global_zero:
        return
    size = params.train.batch_size
    logits = {name: batches.all_logits(network, getattr(data, name), size) for name in ("validation", "test")}
    report = summary(steps)
    with new_directory(MODEL) as models:
        networks.save(network, models / "model.pt")
        write_bytes(REFERENCE, as_npz(logits))
        digests = {"trained_sha256": sha256(TRAINED / "model.pt"), "model_sha256": sha256(models / "model.pt")}
        write_json(REPORT, {**report, **digests})
    shutil.rmtree(folder, ignore_errors=True)
    print(
        f"compressed {report['ratio']:.2f} times: {steps[0]['parameters']} -> {steps[-1]['parameters']} parameters; "
        f"test accuracy {steps[0]['accuracy']:.4f} -> {steps[-1]['accuracy']:.4f}, retention {report['retention']:.4f}"
    )


@dataclass(frozen=True)
class Work:
    """The three steps, each a network in and a network out."""

    fabric: Fabric
    data: Data
    params: Params
    folder: Path

    def distil(self, teacher: Network) -> Network:
        from stages.compress import distil

        params = self.params.compress.distil
        student = distil.make_student(teacher, self.params.train, params.student_scale, self.params.seed)
        recipe = self.params.train.model_copy(update={"epochs": params.epochs})
        self._fit("distil", student, recipe, distil.distillation(teacher, params, self._objective()))
        return student

    def prune(self, network: Network) -> Network:
        from stages.compress.prune import prune

        sparsity = self.params.compress.prune.sparsity
        pruned = prune(self.fabric, network, self.data, self._objective(), sparsity, self.params.seed)
        return pruned.to(self.fabric.device)

    def finetune(self, network: Network) -> Network:
        params, train = self.params.compress.prune, self.params.train
        recipe = train.model_copy(
            update={
                "epochs": params.finetune_epochs,
                "optimiser": train.optimiser.model_copy(update={"learning_rate": params.learning_rate}),
            }
        )
        self._fit("finetune", network, recipe, self._objective())
        return network

    def measure(self, name: str, network: Network) -> dict[str, Any]:
        from stages.train.batches import evaluate

        scores = evaluate(self.fabric, network, self.data.test, self.params.train.batch_size)
        parameters = sum(weight.numel() for weight in network.parameters())
        return {
            "name": name,
            "parameters": parameters,
            "size_bytes": parameters * 4,
            "accuracy": scores.accuracy,
            "f1_macro": scores.f1_macro,
        }

    def _objective(self) -> Objective:
        from stages.train.batches import cross_entropy

        return cross_entropy(self.data, self.params.train, self.fabric.device)

    def _fit(self, name: str, network: Network, recipe: Train, objective: Objective) -> None:
        from stages.train import loop

        recipe = short(recipe)
        with loop.EpochProgress(name, recipe.epochs, self.fabric.is_global_zero) as progress:
            loop.fit(
                self.fabric,
                network,
                self.data,
                recipe,
                objective,
                seed=self.params.seed,
                checkpoint=self.folder / name / "last.pt",
                on_epoch=progress,
            )


def short(recipe: Train) -> Train:
    """Few epochs leave no room for a warm-up that was meant for many."""
    warmup = min(recipe.scheduler.warmup_epochs, recipe.epochs - 1)
    return recipe.model_copy(update={"scheduler": recipe.scheduler.model_copy(update={"warmup_epochs": warmup})})


def summary(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """`ratio` of sizes before and after; `drop` and `retention` of accuracy on the test split."""
    before, after = steps[0], steps[-1]
    return {
        "steps": steps,
        "ratio": before["size_bytes"] / after["size_bytes"],
        "drop": before["accuracy"] - after["accuracy"],
        "retention": after["accuracy"] / before["accuracy"] if before["accuracy"] else 0.0,
    }


def as_npz(arrays: dict[str, Any]) -> bytes:
    """numpy's zip of arrays; it carries no times."""
    import numpy as np

    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()
