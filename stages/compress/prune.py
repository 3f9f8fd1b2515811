"""Structured pruning: remove whole channels, which reduces file size and latency; setting weights to 0 does not."""

from __future__ import annotations

from typing import Any

import torch
import torch_pruning
from lightning_fabric import Fabric
from torch import Tensor

from stages.networks import Network, Rnn, Transformer, architecture, rebuild
from stages.train.batches import Data, load_batch, split_batches
from stages.train.objective import Objective

IMPORTANCE_SAMPLES = 1024  # the importance of channels is computed from at least this many training samples


def prune(fabric: Fabric, network: Network, data: Data, objective: Objective, sparsity: float, seed: int) -> Network:
    """Return a copy of a network without the least important channels.

    The same fraction of channels or units is removed in every layer. In a Cnn, the channels of every block and the
    units of the hidden layer are reduced. In an Rnn, the hidden units of every layer are reduced, in all gates. In a
    Transformer, the model width, the width of every head and the feed-forward layers are reduced. The inputs, the
    classes and the number of heads do not change.

    The importance of a channel is its first-order Taylor term |sum w * dL/dw| (Molchanov et al. 2019), summed over the
    layers that share the channel. The library of Fang et al. (2023) finds these layers.

    Args:
        fabric: The Lightning Fabric whose device is used.
        network: The network to prune.
        data: The prepared data. The importance is computed on its training split.
        objective: The function that computes the loss L.
        sparsity: The fraction of channels to remove, 0 to 1.
        seed: The seed that selects the training samples for the importance.

    Returns:
        The smaller network, on the CPU and in evaluation mode. `network` itself does not change.
    """
    # Evaluation mode switches dropout off, so the gradients are the same every time.
    network = rebuild_like(network).to(fabric.device)
    _gradients(fabric, network, data, objective, seed)
    body, example = network.body, [tensor.to(fabric.device) for tensor in _example(network)]
    pruner = torch_pruning.pruner.BasePruner(
        body,
        example,
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
    """Copy a network that may have been pruned, and return the copy on the CPU and in evaluation mode."""
    copy = rebuild(architecture(network))
    copy.load_state_dict({name: tensor.detach().cpu() for name, tensor in network.state_dict().items()})
    return copy.eval()


def _gradients(fabric: Fabric, network: Network, data: Data, objective: Objective, seed: int) -> None:
    """Set `.grad` of all weights to the sum of the gradients over some batches of training samples.

    The seed selects the batches, which have at least IMPORTANCE_SAMPLES samples if the training split is large enough.
    """
    network.zero_grad()
    samples = 0
    for index in split_batches(len(data.train), 128, seed, 0):
        x, y = load_batch(data.train, index, fabric)
        objective(network(x), x, y).backward()
        samples += len(index)
        if samples >= IMPORTANCE_SAMPLES:
            return


@torch.no_grad()
def _keep_attention_scale(network: Transformer, head_width: int) -> None:
    """Scale the query weights so that the attention scores keep their scale after pruning.

    Attention divides its scores by the square root of the head width, and pruning has reduced the head width.
    `head_width` is the width of a head before pruning.
    """
    ratio = (network.sizes()["head_width"] / head_width) ** 0.5
    for layer in network.body.layers:
        layer.attention.query.weight.mul_(ratio)
        layer.attention.query.bias.mul_(ratio)


def _example(network: Network) -> list[Tensor]:
    """Return example inputs for the network's body. The pruning library uses them to trace how layers are connected.

    For an Rnn, the result has the inputs of two steps. For other networks, it has one input.
    """
    with torch.no_grad():
        if isinstance(network, Rnn):
            device = network.preprocess.center.device
            frame = network.preprocess(torch.zeros(1, *network.frame_shape, device=device)).flatten(1)
            return [frame, frame]
        return [torch.zeros(1, *network.body_shape)]


def _run(body: Any, example: list[Tensor]) -> Any:
    """Compute the logits of the network's body for the inputs that `_example` returned."""
    if len(example) == 1:
        return body(example[0])
    states = body.initial_states(1)
    for frame in example:
        logits, *states = body.step(frame, *states)
    return logits


def _heads(network: Network) -> dict[Any, int]:
    """Return the number of heads of each query, key and value layer; empty if `network` is not a Transformer."""
    if not isinstance(network, Transformer):
        return {}
    attentions = [layer.attention for layer in network.body.layers]
    return {
        linear: attention.heads
        for attention in attentions
        for linear in (attention.query, attention.key, attention.value)
    }
