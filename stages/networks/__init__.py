"""The networks, and their files.

Enter at `build()`, `save()` and `load()`; a module per kind of network, `preprocess` is the first layer of each.
A file holds the architecture as plain values and the weights as tensors: reading it runs no code, and a
pruned network is rebuilt with its own sizes. Equal networks give equal bytes.
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
    """A network of the kind and sizes in `params`, its weights random; `scale` multiplies every width.

    Raises ParameterError where the sizes do not fit the sample.
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
    """Plain values from which `rebuild` makes the same network with other weights."""
    return {"network": network.kind, "spec": network.spec.model_dump(), "sizes": network.sizes()}


def rebuild(plan: dict[str, Any]) -> Network:
    network: Network = KINDS[plan["network"]](SampleSpec.model_validate(plan["spec"]), **plan["sizes"])
    return network


def serialise(value: Any) -> bytes:
    """torch.save to bytes; the zip file inside carries no times and no file name."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def save(network: Network, path: Path) -> None:
    """Write architecture and weights (moved to the CPU); whole or not at all."""
    weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    write_bytes(path, serialise({"architecture": architecture(network), "weights": weights}))


def load(path: Path) -> Network:
    """The network in `path`, on the CPU, in evaluation mode. Raises StageError."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        network = rebuild(stored["architecture"])
        network.load_state_dict(stored["weights"])
    except FileNotFoundError:
        raise StageError(
            str(path), "there is no such file", "a network that an earlier stage wrote", "run it"
        ) from None
    except Exception as error:  # what torch raises on damaged bytes has no common class
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights_only" in str(error):  # torch then tells how to run the code of a file that nobody trusts
            why = "it is not what torch.save writes of plain values and tensors"
        raise StageError(
            str(path),
            f"not readable as a network: {why}",
            "a file written by the stage train or compress",
            "remove it and run that stage again",
        ) from None
    return network.eval()
