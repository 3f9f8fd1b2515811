"""Knowledge distillation: train a smaller network of the same kind to reproduce the outputs of the trained network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.networks import Network, build
from stages.params.compress import Distil
from stages.params.train import Train
from stages.train.objective import Objective


def make_student(teacher: Network, params: Train, scale: float, seed: int) -> Network:
    """Build the student: a smaller network with random weights and the teacher's preprocessing.

    Args:
        teacher: The trained network, whose outputs the student will learn.
        params: The parameters of training, which define the kind and the sizes of the teacher.
        scale: The factor by which the width of every layer is multiplied, at most 1.
        seed: The seed of the random weights.
    """
    torch.manual_seed(seed)
    student = build(teacher.spec, params, scale)
    student.preprocess.load_state_dict(teacher.preprocess.state_dict())
    return student


def distillation(teacher: Network, params: Distil, objective: Objective) -> Objective:
    """Return the distillation loss: alpha * T^2 * KL(teacher || student) + (1 - alpha) * `objective`.

    The loss is from Hinton et al. 2015. In the first term, the logits of teacher and student are divided by the
    temperature T. The factor T^2 keeps the ratio of the two terms' gradients about the same for every T.

    Args:
        teacher: The trained network. It is set to evaluation mode.
        params: The parameters of distillation, which define the temperature T and the weight alpha.
        objective: The loss for the labels.
    """
    temperature, alpha = params.temperature, params.alpha
    teacher = teacher.eval()

    def loss(logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            soft = F.log_softmax(teacher(x) / temperature, dim=1)
        student = F.log_softmax(logits / temperature, dim=1)
        divergence = F.kl_div(student, soft, reduction="batchmean", log_target=True)
        return alpha * temperature**2 * divergence + (1 - alpha) * objective(logits, x, y)

    return loss
