"""Save and load checkpoints of unfinished training runs, and choose the folder for the checkpoints of a run."""

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

# The files below `stages/` that affect the result of a training run. A run does not resume from a checkpoint that
# another version of these files wrote.
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
    """Return the folder of this run's checkpoints, and remove the folders of the stage's other runs.

    The folder is .work/<stage>/<digest>. It is not one of the stage's outputs, because DVC removes the outputs before
    it runs the stage. The digest covers everything that affects the result, so a run never resumes from a stale
    checkpoint.

    A folder with a different digest belongs to a run that was killed before the code, data or parameters changed. If
    such folders were kept, their weights and optimiser states would fill the disk. (A run that completes removes its
    own folder; DVC's run cache can restore the run's results.)

    Args:
        stage: "train" or "compress".
        params: All parameters. The digest covers the seed, `train` and, for "compress", `compress`.
        inputs: Files and folders that the run reads.
        fabric: The device and the processes of the run. The digest covers the type of device and the number of
            processes, because both affect the last bits of sums.

    Raises:
        FileNotFoundError: A module listed in `CODE`, or an input, is missing.
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
    """Return a copy of the network's weights and buffers, which later training does not change.

    Without a copy, training would change the tensors from state_dict() in place.
    """
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def save_checkpoint(
    path: Path, network: nn.Module, optimiser: Any, history: list[Epoch], best: dict[str, Tensor]
) -> None:
    """Write a checkpoint with everything that a run needs to resume after its last completed epoch.

    Args:
        path: The checkpoint file, which is replaced atomically.
        network: The network, with the weights of the last completed epoch.
        optimiser: The network's optimiser.
        history: The results of every completed epoch.
        best: The network's weights and buffers after the best epoch.
    """
    state = {"history": [astuple(epoch) for epoch in history], "weights": network.state_dict()}
    write_bytes(path, serialise({**state, "best": best, "optimiser": optimiser.state_dict()}))


def load_checkpoint(path: Path, network: nn.Module, optimiser: Any) -> tuple[list[Epoch], dict[str, Tensor]]:
    """Load a checkpoint into a network and its optimiser. If the file does not exist, both stay unchanged.

    Args:
        path: The checkpoint file.
        network: The network, changed in place.
        optimiser: The network's optimiser, changed in place.

    Returns:
        The results of every completed epoch, and the network's weights and buffers after the best epoch. If the file
        does not exist, an empty list and the network's current weights and buffers are returned.
    """
    if not path.exists():
        return [], copy_weights(network)
    state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    network.load_state_dict(state["weights"])
    optimiser.load_state_dict(state["optimiser"])
    return [Epoch(*values) for values in state["history"]], state["best"]
