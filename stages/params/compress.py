"""Parameters of `compress`."""

from __future__ import annotations

from pydantic import Field

from stages.params.common import Block, Count, Rate, Share


class Distil(Block):
    """Hinton et al. 2015: loss = alpha * T^2 * KL(teacher, student) + (1 - alpha) * cross entropy."""

    enabled: bool
    temperature: float = Field(ge=0.01, le=1000)
    alpha: Share
    epochs: Count
    student_scale: float = Field(gt=0, le=1)


class Prune(Block):
    """`sparsity` is the share of channels that goes away."""

    enabled: bool
    sparsity: float = Field(gt=0, lt=1)
    finetune_epochs: int = Field(ge=0, le=2**31 - 1)
    learning_rate: Rate


class Compress(Block):
    distil: Distil
    prune: Prune
