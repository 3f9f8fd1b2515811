"""Parameters of the stage `compress`: knowledge distillation, pruning and fine-tuning."""

from __future__ import annotations

from pydantic import Field

from stages.params.common import Block, Count, Rate, Share


class Distil(Block):
    """Knowledge distillation into a smaller network (Hinton et al. 2015).

    The loss is alpha * T^2 * KL(teacher, student) + (1 - alpha) * cross entropy.
    """

    enabled: bool = Field(
        description="Whether a smaller network (the student) is trained to imitate the trained network (the teacher)."
    )
    temperature: float = Field(
        ge=0.01,
        le=1000,
        description="Temperature T, which divides the logits of teacher and student before they are compared.",
    )
    alpha: Share = Field(
        description="Weight of the teacher's outputs in the loss; the weight of the labels is 1 - alpha."
    )
    epochs: Count = Field(description="Number of epochs for which the student is trained.")
    student_scale: float = Field(
        gt=0, le=1, description="Width of each layer of the student, as a fraction of the layer's width in the teacher."
    )


class Prune(Block):
    """Structured pruning, which removes whole channels, followed by fine-tuning."""

    enabled: bool = Field(description="Whether channels are pruned.")
    sparsity: float = Field(gt=0, lt=1, description="Fraction of channels to remove.")
    finetune_epochs: int = Field(
        ge=0, le=2**31 - 1, description="Number of epochs of fine-tuning after pruning; 0: no fine-tuning."
    )
    learning_rate: Rate = Field(description="Learning rate of the fine-tuning.")


class Compress(Block):
    """Steps that make the trained network smaller."""

    distil: Distil = Field(description="Knowledge distillation into a smaller network.")
    prune: Prune = Field(description="Removal of channels, followed by fine-tuning.")
