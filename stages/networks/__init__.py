"""Build networks, save them to files, and load them from files.

Start reading at `build()`, `save()` and `load()`. Each kind of network has its own module, and `preprocess` defines the
first layer of all networks. The file of a network contains the architecture as plain values and the weights as tensors.
Loading a file runs no code from the file, and rebuilds a pruned network with its reduced sizes. Equal networks give
files with equal bytes.
May import stages.params and stages.core.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from stages.core.dataset import SampleSpec
from stages.core.errors import StageError
from stages.core.files import write_bytes
from stages.networks.base import Network
from stages.networks.cnn import Cnn
from stages.networks.preprocess import Preprocess
from stages.networks.rnn import Rnn
from stages.networks.transformer import Transformer
from stages.params.train import Train

__all__ = ["Cnn", "Network", "Preprocess", "Rnn", "Transformer", "architecture", "build", "load", "rebuild", "save"]

KINDS: dict[str, Any] = {"cnn": Cnn, "rnn": Rnn, "transformer": Transformer}


def build(spec: SampleSpec, params: Train, scale: float = 1.0) -> Network:
    """Build a network with random weights, which are drawn from torch's global random generator.

    Args:
        spec: The description of a sample: shape, classes, scaling, spectral features.
        params: The parameters of training, which select the kind of network and its sizes.
        scale: Factor by which the number of channels or units of every layer is multiplied. Each product is rounded to
            an integer of at least 1; the width of a transformer's tokens is rounded to a multiple of the number of
            heads.

    Raises:
        ParameterError: The sizes do not fit the shape of a sample.
    """

    def scaled(width: int, multiple: int = 1) -> int:
        return max(1, round(width * scale / multiple)) * multiple

    if params.network == "cnn":
        cnn = params.cnn
        return Cnn(
            spec,
            bins=params.quantile_bins,
            channels=[scaled(width) for width in cnn.channels],
            kernel=cnn.kernel,
            pool=cnn.pool,
            head=cnn.head,
            hidden=scaled(cnn.hidden),
            dropout=cnn.dropout,
        )
    if params.network == "rnn":
        rnn = params.rnn
        return Rnn(
            spec,
            bins=params.quantile_bins,
            cell=rnn.cell,
            hidden=[scaled(rnn.hidden)] * rnn.layers,
            frame=rnn.frame,
            hop=rnn.hop,
            pool=rnn.pool,
            dropout=rnn.dropout,
        )
    transformer = params.transformer
    width = scaled(transformer.width, transformer.heads)
    return Transformer(
        spec,
        bins=params.quantile_bins,
        width=width,
        heads=transformer.heads,
        head_width=width // transformer.heads,
        feedforward=[scaled(transformer.feedforward)] * transformer.layers,
        patch=transformer.patch,
        dropout=transformer.dropout,
    )


def architecture(network: Network) -> dict[str, Any]:
    """Return a network's kind, sample description and sizes as plain values, but not its weights.

    `rebuild` builds a network from these values.
    """
    return {"network": network.kind, "spec": network.spec.model_dump(), "sizes": network.sizes()}


def rebuild(plan: dict[str, Any]) -> Network:
    """Build a network with random weights from the values that `architecture` returned."""
    network: Network = KINDS[plan["network"]](SampleSpec.model_validate(plan["spec"]), **plan["sizes"])
    return network


def serialise(value: Any) -> bytes:
    """Return a value as the bytes that torch.save writes.

    Equal values give equal bytes, because the bytes contain neither a time nor a file name.
    """
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def save(network: Network, path: Path) -> None:
    """Write a network's architecture and weights to a file. The weights are stored as CPU tensors.

    If writing fails, an existing file stays unchanged.
    """
    weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    write_bytes(path, serialise({"architecture": architecture(network), "weights": weights}))


def load(path: Path) -> Network:
    """Load a network from a file. The network is on the CPU and in evaluation mode.

    Raises:
        StageError: The file does not exist, or was not written by `save`.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        network = rebuild(stored["architecture"])
        network.load_state_dict(stored["weights"])
    except FileNotFoundError:
        raise StageError(
            str(path), "there is no such file", "a network that the `train` or `compress` stage wrote", "run make repro"
        ) from None
    except Exception as error:  # torch raises errors of many classes for corrupted files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights_only" in str(error):  # torch's message explains how to run code from untrusted files
            reason = "it contains more than plain values and tensors, or was not written by torch.save"
        raise StageError(
            str(path),
            f"not readable as a network: {reason}",
            "a file that the `train` or `compress` stage wrote",
            "remove the file, and rerun the stage that wrote it",
        ) from None
    return network.eval()
