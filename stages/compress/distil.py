"""Knowledge distillation: a smaller network of the same kind learns what the trained one answers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.networks import Network, build
from stages.params.compress import Distil
from stages.params.train import Train
from stages.train.objective import Objective


def make_student(teacher: Network, params: Train, scale: float, seed: int) -> Network:
    """Every width times `scale`, random weights, the teacher's own preprocessing."""
    torch.manual_seed(seed)
    student = build(teacher.spec, params, scale)
    student.preprocess.load_state_dict(teacher.preprocess.state_dict())
    return student


def distillation(teacher: Network, params: Distil, objective: Objective) -> Objective:
    """alpha * T^2 * KL(teacher || student), both softened by T, + (1 - alpha) * `objective` (Hinton et al. 2015).

    The factor T^2 keeps the gradients of the first term as large as those of the second whatever T is.
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
