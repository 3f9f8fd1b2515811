"""Checkpoints: where an unfinished training run is kept, what it holds, and which run may resume from it."""

from __future__ import annotations

import hashlib
import io
import shutil
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stages.core.files import sha256, write_bytes
from stages.networks import serialise
from stages.params import Params
from stages.train.schedule import Epoch

# The code that decides the result of a training run, below `stages/`. A run does not resume from a checkpoint of
# other code.
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
    "train/checkpoints.py",
    "train/fabric.py",
    "train/loop.py",
    "train/objective.py",
    "train/schedule.py",
    "train/scores.py",
    "train/stage.py",
)


def checkpoint_folder(stage: str, params: Params, inputs: list[Path], fabric: Fabric) -> Path:
    """Return the folder of this run's checkpoints: .work/<stage>/<digest>, outside DVC's outs, which DVC removes.

    The digest is of everything that decides the result, so that a run never resumes from a stale checkpoint. Folders
    of other digests belong to runs that were killed and then replaced by this one. They are removed; otherwise each
    change after a kill would leave weights and the optimiser's state on the disk. (A run that ends removes its own
    folder; DVC's run cache brings back its results.)

    Args:
        stage: "train" or "compress".
        params: All parameters; the digest is of the seed, `train` and, for "compress", `compress`.
        inputs: Files and folders that the run reads.
        fabric: Kind of device and number of processes, which change sums in the last bits.

    Raises:
        FileNotFoundError: A module listed in `CODE` is missing.
    """
    root = Path(__file__).parents[1]
    parts = [stage, str(params.seed), params.train.model_dump_json(), torch.__version__]
    if stage == "compress":
        parts.append(params.compress.model_dump_json())
    parts += [str(fabric.device.type), str(fabric.world_size)]
    parts += [sha256(path) for path in [*inputs, *(root / name for name in CODE)]]
    folder = Path(".work") / stage / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    if fabric.is_global_zero:
        for other in set(folder.parent.glob("*/")) - {folder}:
            shutil.rmtree(other)
    return folder


def copy_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the network's state; state_dict() itself refers to weights that training goes on to change."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def save_checkpoint(
    path: Path, network: nn.Module, optimiser: Any, history: list[Epoch], best: dict[str, Tensor]
) -> None:
    """Write all that a run needs to resume after its last epoch.

    Args:
        path: The checkpoint, replaced as a whole.
        network: The network, with the weights of the last epoch.
        optimiser: Its optimiser.
        history: Every epoch up to now.
        best: State of the network after the best epoch.
    """
    state = {"history": [astuple(each) for each in history], "weights": network.state_dict()}
    write_bytes(path, serialise({**state, "best": best, "optimiser": optimiser.state_dict()}))


def load_checkpoint(path: Path, network: nn.Module, optimiser: Any) -> tuple[list[Epoch], dict[str, Tensor]]:
    """Bring network and optimiser to the state of a checkpoint, where there is one.

    Args:
        path: The checkpoint.
        network: Changed in place.
        optimiser: Changed in place.

    Returns:
        The epochs that were done, and the state of the network after the best one.
    """
    if not path.exists():
        return [], copy_weights(network)
    state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    network.load_state_dict(state["weights"])
    optimiser.load_state_dict(state["optimiser"])
    return [Epoch(*values) for values in state["history"]], state["best"]
