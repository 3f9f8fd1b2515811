"""A pre-norm transformer encoder (Vaswani et al. 2017) over patches of a sample (Dosovitskiy et al. 2021).

Attention is written as matrix products and a softmax, because every converter supports these operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stages.core.dataset import SampleSpec
from stages.core.errors import ParameterError
from stages.networks.base import Network
from stages.params import locate_parameter


class Transformer(Network):
    """A transformer encoder whose classifier reads the mean of the tokens.

    Each token is computed from one patch of the sample: `patch` x `patch` pixels of an image, `patch` time steps of a
    series or of raw audio, or `patch` frames of spectral features. An incomplete patch at the end is ignored.
    """

    kind = "transformer"

    def __init__(
        self,
        spec: SampleSpec,
        *,
        bins: int,
        width: int,
        heads: int,
        head_width: int,
        feedforward: list[int],
        patch: int,
        dropout: float,
    ) -> None:
        """Build the network with random weights.

        Args:
            spec: The description of a sample.
            bins: Number of quantile bins per channel of a series (see `preprocess.QuantileBins`); 0 for no bins.
            width: Number of values in a token.
            heads: Number of attention heads in each layer.
            head_width: Number of values in a query, key or value of one head.
            feedforward: Number of units in the feed-forward block of each layer, with one entry per layer.
            patch: Length of each side of a patch, in pixels, time steps or frames.
            dropout: Probability that a value is dropped in training. Dropout is applied to the embedded tokens and to
                the outputs of the attention and feed-forward blocks.

        Raises:
            ParameterError: A patch is larger than a sample.
        """
        super().__init__(spec, bins)
        self.patch, self.dropout = patch, dropout
        shape = self.body_shape
        if spec.features is not None:
            extent: tuple[int, ...] = (shape[1], patch)
        else:
            extent = (patch,) * (len(shape) - 1)
        if any(size < side for size, side in zip(shape[1:], extent, strict=True)):
            raise ParameterError(
                locate_parameter("train.transformer.patch"),
                f"found {patch}, which is larger than a sample of shape {list(shape)}",
                f"at most {min(shape[1:])}",
                "lower train.transformer.patch",
            )
        self.body = TransformerBody(shape, extent, len(spec.classes), width, heads, head_width, feedforward, dropout)

    def sizes(self) -> dict[str, Any]:
        attention = self.body.layers[0].attention
        return {
            "bins": self.bins,
            "width": self.body.position.shape[2],
            "heads": attention.heads,
            "head_width": attention.query.out_features // attention.heads,
            "feedforward": [layer.expand.out_features for layer in self.body.layers],
            "patch": self.patch,
            "dropout": self.dropout,
        }


class TransformerBody(nn.Module):
    """The layers of a transformer after preprocessing: preprocessed samples [B, *shape] -> logits [B, classes]."""

    def __init__(
        self,
        shape: tuple[int, ...],
        patch: tuple[int, ...],
        classes: int,
        width: int,
        heads: int,
        head_width: int,
        feedforward: list[int],
        dropout: float,
    ) -> None:
        """Build the layers with random weights.

        Args:
            shape: Shape of one preprocessed sample: [C, T] or [C, H, W].
            patch: Length of a patch along each axis of `shape`, without the channels.
            classes: Number of classes.
            width: As in `Transformer`.
            heads: As in `Transformer`.
            head_width: As in `Transformer`.
            feedforward: As in `Transformer`.
            dropout: As in `Transformer`.
        """
        super().__init__()
        tokens = 1
        for size, side in zip(shape[1:], patch, strict=True):
            tokens *= size // side
        convolution: Any = nn.Conv2d if len(patch) == 2 else nn.Conv1d
        self.embed = convolution(shape[0], width, patch, stride=patch)
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers: Any = nn.ModuleList(Layer(width, heads, head_width, inner, dropout) for inner in feedforward)
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position
        tokens = self.dropout(tokens)
        for layer in self.layers:
            tokens = layer(tokens)
        logits: Tensor = self.classifier(self.norm(tokens).mean(dim=1))
        return logits


class Layer(nn.Module):
    """An encoder layer: attention and a feed-forward block, each with a residual connection.

    The input and the output are [B, tokens, width].
    """

    def __init__(self, width: int, heads: int, head_width: int, feedforward: int, dropout: float) -> None:
        """Build the layer with random weights.

        Args:
            width: As in `Transformer`.
            heads: As in `Transformer`.
            head_width: As in `Transformer`.
            feedforward: Number of units in the feed-forward block.
            dropout: As in `Transformer`.
        """
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, head_width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, feedforward)
        self.relu = nn.ReLU()
        self.contract = nn.Linear(feedforward, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.dropout(self.attention(self.attention_norm(tokens)))
        inner = self.relu(self.expand(self.feedforward_norm(tokens)))
        output: Tensor = tokens + self.dropout(self.contract(inner))
        return output


class Attention(nn.Module):
    """Multi-head attention: softmax(Q K^T / sqrt(head_width)) V in each head.

    The input and the output are [B, tokens, width].
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        """Build the linear layers with random weights.

        Args:
            width: Number of values in a token.
            heads: Number of heads.
            head_width: Number of values in a query, key or value of one head.
        """
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads * head_width)
        self.key = nn.Linear(width, heads * head_width)
        self.value = nn.Linear(width, heads * head_width)
        self.output = nn.Linear(heads * head_width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            self._heads(self.query(tokens)),
            self._heads(self.key(tokens)),
            self._heads(self.value(tokens)),
        )
        weights = torch.softmax(torch.matmul(query, key.transpose(2, 3)) * query.shape[3] ** -0.5, dim=-1)
        mixed = torch.matmul(weights, value).transpose(1, 2).flatten(2)
        output: Tensor = self.output(mixed)
        return output

    def _heads(self, tokens: Tensor) -> Tensor:
        """Split the last axis into heads: [B, tokens, heads * head_width] -> [B, heads, tokens, head_width]."""
        size = (self.heads, tokens.shape[2] // self.heads)
        heads: Tensor = tokens.unflatten(2, size)
        return heads.transpose(1, 2)
