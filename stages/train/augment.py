"""Random changes to a batch of training samples, in raw units. Validation and test samples never come here."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.core.dataset import SampleSpec
from stages.core.errors import ParameterError
from stages.params import locate_parameter
from stages.params.train import Augment


def check(params: Augment, spec: SampleSpec) -> None:
    """Raise ParameterError where an augmentation has no meaning for this kind of sample."""
    for name, value, image in (("rotation_deg", params.rotation_deg, True), ("time_shift", params.time_shift, False)):
        if value and image != (spec.kind == "image"):
            raise ParameterError(
                locate_parameter(f"train.augment.{name}"),
                f"found {value} for samples of kind {spec.kind}",
                f"0: it is defined for {'images' if image else 'series and audio'} only",
                "set it to 0.0",
            )


def augment(x: Tensor, spec: SampleSpec, params: Augment) -> Tensor:
    """Changed copies of samples [B, *spec.shape]; every sample draws its own changes from torch's generator.

    Images are turned by up to `rotation_deg` and enlarged or reduced by up to the factor 1 + `scaling`. Series and
    audio are scaled about the channel's center by such a factor and shifted by up to `time_shift` of their length,
    the edge repeated. Noise is Gaussian; each sample draws its deviation up to `noise` of the channel's scale.
    """
    if spec.kind == "image":
        if params.rotation_deg or params.scaling:
            x = turn_and_zoom(x, params.rotation_deg, params.scaling)
    else:
        if params.time_shift:
            x = shift(x, params.time_shift)
        if params.scaling:
            center = _per_channel(spec.scaling.center, x)
            x = center + (x - center) * _factors(x, params.scaling)
    if params.noise:
        deviation = params.noise * torch.rand(x.shape[0], *(1,) * (x.dim() - 1), device=x.device)
        x = x + torch.randn_like(x) * deviation * _per_channel(spec.scaling.scale, x)
    return x


def turn_and_zoom(x: Tensor, degrees: float, zoom: float) -> Tensor:
    """Images [B, C, H, W] about their centre, bilinear; what comes from outside is 0. Angles are of square pixels."""
    batch, _, height, width = x.shape
    angle = (torch.rand(batch, device=x.device) * 2 - 1) * math.radians(degrees)
    factor = _factors(x, zoom).flatten()
    cosine, sine = torch.cos(angle) / factor, torch.sin(angle) / factor
    none, ratio = torch.zeros_like(angle), height / width
    matrix = torch.stack([cosine, -sine * ratio, none, sine / ratio, cosine, none], dim=1).view(batch, 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def shift(x: Tensor, share: float) -> Tensor:
    """Series [B, C, T] by whole samples, up to `share` of T either way."""
    length = x.shape[2]
    most = int(length * share)
    by = torch.randint(-most, most + 1, (x.shape[0], 1), device=x.device)
    place = (torch.arange(length, device=x.device) - by).clamp(0, length - 1)
    return x.gather(2, place[:, None, :].expand_as(x))


def _factors(x: Tensor, share: float) -> Tensor:
    """Per sample a factor between 1 / (1 + share) and 1 + share, as likely above 1 as below."""
    power = torch.rand(x.shape[0], *(1,) * (x.dim() - 1), device=x.device) * 2 - 1
    return (1 + share) ** power


def _per_channel(values: list[float], x: Tensor) -> Tensor:
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(1, -1, *(1,) * (x.dim() - 2))
