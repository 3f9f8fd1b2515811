"""Apply random changes to batches of training samples in raw units. Validation and test samples are not changed."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.core.dataset import SampleSpec
from stages.core.errors import ParameterError
from stages.params import locate_parameter
from stages.params.train import Augment


def check_parameters(params: Augment, spec: SampleSpec) -> None:
    """Check that every requested augmentation is defined for this kind of sample.

    Raises:
        ParameterError: A rotation is requested for series or audio, or a time shift for images.
    """
    for name, value, for_images in (
        ("rotation_deg", params.rotation_deg, True),
        ("time_shift", params.time_shift, False),
    ):
        if value and for_images != (spec.kind == "image"):
            raise ParameterError(
                locate_parameter(f"train.augment.{name}"),
                f"found {value} for samples of kind {spec.kind}",
                f"0, because this augmentation is defined for {'images' if for_images else 'series and audio'} only",
                "set it to 0.0",
            )


def augment(x: Tensor, spec: SampleSpec, params: Augment) -> Tensor:
    """Return randomly changed copies of samples. The changes are drawn from torch's generator, separately per sample.

    Images are rotated by up to `rotation_deg` degrees in either direction, and enlarged or reduced by a factor of up to
    1 + `scaling`. Series and audio are shifted in time by at most the fraction `time_shift` of their length, and the
    first or last value fills the gap. In series and audio, the deviation of each value from its channel's center is
    also multiplied or divided by a factor of up to 1 + `scaling`. Finally, Gaussian noise is added to samples of every
    kind; the standard deviation of the noise is drawn for each sample, from 0 to `noise` times the channel's scale.

    Args:
        x: Samples [B, *spec.shape] in raw units.
        spec: The description of a sample: its kind, and the center and scale of every channel.
        params: The maximum of each type of change; 0 disables that type.
    """
    if spec.kind == "image":
        if params.rotation_deg or params.scaling:
            x = rotate_and_zoom(x, params.rotation_deg, params.scaling)
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


def rotate_and_zoom(x: Tensor, degrees: float, zoom: float) -> Tensor:
    """Rotate and resize each image about its centre by a random angle and factor, with bilinear interpolation.

    Pixels of the result that are outside the original image are 0. Pixels are assumed to be square, even if height and
    width differ.

    Args:
        x: Images [B, C, H, W].
        degrees: Maximum rotation in either direction, in degrees.
        zoom: Maximum change in size; the factor of each image is between 1 / (1 + zoom) and 1 + zoom.
    """
    batch, _, height, width = x.shape
    angle = (torch.rand(batch, device=x.device) * 2 - 1) * math.radians(degrees)
    factor = _factors(x, zoom).flatten()
    cosine, sine = torch.cos(angle) / factor, torch.sin(angle) / factor
    zero, ratio = torch.zeros_like(angle), height / width
    matrix = torch.stack([cosine, -sine * ratio, zero, sine / ratio, cosine, zero], dim=1).view(batch, 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def shift(x: Tensor, share: float) -> Tensor:
    """Shift each series [B, C, T] in time by a random number of steps, at most `share` * T in either direction."""
    length = x.shape[2]
    largest = int(length * share)
    offset = torch.randint(-largest, largest + 1, (x.shape[0], 1), device=x.device)
    index = (torch.arange(length, device=x.device) - offset).clamp(0, length - 1)
    return x.gather(2, index[:, None, :].expand_as(x))


def _factors(x: Tensor, share: float) -> Tensor:
    """Draw a random factor between 1 / (1 + share) and 1 + share for each sample in `x`.

    A factor above 1 is as likely as a factor below 1.
    """
    power = torch.rand(x.shape[0], *(1,) * (x.dim() - 1), device=x.device) * 2 - 1
    return (1 + share) ** power


def _per_channel(values: list[float], x: Tensor) -> Tensor:
    """Return the values, one per channel, as a tensor that broadcasts to the shape of the samples `x`."""
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(1, -1, *(1,) * (x.dim() - 2))
