"""Structured pruning: whole channels go away, so the file and the latency shrink, not only the count of zeros."""

from __future__ import annotations

from typing import Any

import torch
import torch_pruning
from lightning_fabric import Fabric
from torch import Tensor

from stages.networks import Network, Rnn, Transformer, architecture, rebuild
from stages.train.batches import Data, load_batch, split_batches
from stages.train.objective import Objective

IMPORTANCE_SAMPLES = 1024  # gradients for the importance come from so many training samples


def prune(fabric: Fabric, network: Network, data: Data, objective: Objective, sparsity: float, seed: int) -> Network:
    """A new network without the `sparsity` share of channels that matter least, everywhere at once.

    Cnn: the channels of every block and the hidden layer. Rnn: the hidden units of every layer, in all gates.
    Transformer: the width, the width of every head, the feed-forward layers. Inputs, classes and heads stay.
    Importance is the first-order Taylor term |sum w * dL/dw| of a channel (Molchanov et al. 2019), summed over
    the layers that share the channel (Fang et al. 2023, whose library finds them).
    """
    network = rebuild_like(network).to(
        fabric.device
    )  # in evaluation mode, so no dropout: the same gradients every time
    _gradients(fabric, network, data, objective, seed)
    body, frames = network.body, _example(network)
    frames = [frame.to(fabric.device) for frame in frames]
    pruner = torch_pruning.pruner.BasePruner(
        body,
        frames,
        importance=torch_pruning.importance.GroupTaylorImportance(),
        pruning_ratio=sparsity,
        ignored_layers=[body.classifier],
        num_heads=_heads(network),
        unwrapped_parameters=[(body.position, 2)] if isinstance(network, Transformer) else None,
        forward_fn=_run,
    )
    before = network.sizes()
    pruner.step()
    if isinstance(network, Transformer):
        _keep_attention_scale(network, before["head_width"])
    return rebuild_like(network)


def rebuild_like(network: Network) -> Network:
    """A copy from architecture and weights alone, in evaluation mode: what `save` and `load` would give."""
    copy = rebuild(architecture(network))
    copy.load_state_dict({name: tensor.detach().cpu() for name, tensor in network.state_dict().items()})
    return copy.eval()


def _gradients(fabric: Fabric, network: Network, data: Data, objective: Objective, seed: int) -> None:
    """Fill .grad with the sum over a fixed choice of training samples."""
    network.zero_grad()
    done = 0
    for index in split_batches(len(data.train), 128, seed, 0):
        x, y = load_batch(data.train, index, fabric)
        objective(network(x), x, y).backward()
        done += len(index)
        if done >= IMPORTANCE_SAMPLES:
            return


@torch.no_grad()
def _keep_attention_scale(network: Transformer, head_width: int) -> None:
    """Attention divides by the square root of a head's width; narrower heads shall not change the quotient."""
    ratio = (network.sizes()["head_width"] / head_width) ** 0.5
    for layer in network.body.layers:
        layer.attention.query.weight.mul_(ratio)
        layer.attention.query.bias.mul_(ratio)


def _example(network: Network) -> list[Tensor]:
    """Inputs of the body that show the library how layers depend on each other: for an Rnn two steps in a row."""
    with torch.no_grad():
        if isinstance(network, Rnn):
            device = network.preprocess.center.device
            frame = network.preprocess(torch.zeros(1, *network.frame_shape, device=device)).flatten(1)
            return [frame, frame]
        return [torch.zeros(1, *network.body_shape)]


def _run(body: Any, frames: list[Tensor]) -> Any:
    if len(frames) == 1:
        return body(frames[0])
    states = body.initial_states(1)
    for frame in frames:
        logits, *states = body.step(frame, *states)
    return logits


def _heads(network: Network) -> dict[Any, int]:
    if not isinstance(network, Transformer):
        return {}
    attentions = [layer.attention for layer in network.body.layers]
    return {
        linear: attention.heads
        for attention in attentions
        for linear in (attention.query, attention.key, attention.value)
    }
