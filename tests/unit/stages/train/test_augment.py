"""Test augmentation: the effect of each change, and the kinds of samples that it is defined for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.core.errors import ParameterError
from stages.params.train import Augment
from stages.train.augment import augment, check_parameters, rotate_and_zoom, shift
from tests.support.stages.training import samples, spec_of


def params(noise: float = 0.0, rotation_deg: float = 0.0, scaling: float = 0.0, time_shift: float = 0.0) -> Augment:
    return Augment(noise=noise, rotation_deg=rotation_deg, scaling=scaling, time_shift=time_shift)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", ["image", "series", "log-mel"])
def test_without_augmentation_samples_stay_unchanged(kind: str) -> None:
    x = torch.from_numpy(samples(kind, 4)[0])
    assert torch.equal(augment(x, spec_of(kind), params()), x)


@pytest.mark.parametrize("kind", ["image", "series"])
def test_noise_is_relative_to_the_scale_of_each_channel(kind: str) -> None:
    spec = spec_of(kind)
    x = torch.zeros(4000, *spec.shape)
    noise = augment(x, spec, params(noise=0.3))
    # The deviation is drawn uniformly up to 0.3 of the scale: its root mean square is 0.3 / sqrt(3).
    deviation = noise.transpose(0, 1).flatten(1).std(dim=1)
    torch.testing.assert_close(deviation, torch.tensor(spec.scaling.scale) * 0.3 / 3**0.5, rtol=0.05, atol=0)
    assert (noise[0] - noise[1]).abs().max() > 0


def test_rotation_by_90_degrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.ones(*size))  # the largest angle
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 0, 2] = 1.0
    turned = rotate_and_zoom(x, 90.0, 0.0)
    assert turned.flatten().argmax() in (2 * 5 + 0, 2 * 5 + 4)
    torch.testing.assert_close(turned.sum(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_rotation_keeps_angles_in_images_that_are_not_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.ones(*size))
    x = torch.zeros(1, 1, 9, 21)
    x[0, 0, 4, 13] = 1.0  # three pixels to the right of the centre
    position = int(rotate_and_zoom(x, 90.0, 0.0).flatten().argmax())
    assert position in (1 * 21 + 10, 7 * 21 + 10)  # three pixels above or below the centre


def test_zoom_enlarges_and_reduces_by_at_most_the_factor() -> None:
    x = torch.zeros(500, 1, 21, 21)
    x[:, :, 6:15, 6:15] = 1.0  # 81 pixels
    area = rotate_and_zoom(x, 0.0, 0.2).sum(dim=(1, 2, 3)) / 81
    assert area.max() > 1.3 and area.min() < 1 / 1.3
    assert area.max() < 1.2**2 * 1.05 and area.min() > 1.2**-2 / 1.05


def test_series_are_scaled_about_the_channels_center() -> None:
    spec = spec_of("series")
    center = torch.tensor(spec.scaling.center)[None, :, None]
    x = center + torch.from_numpy(np.random.default_rng(0).normal(size=(200, *spec.shape))).float()
    factors = ((augment(x, spec, params(scaling=0.5)) - center) / (x - center)).flatten(1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), rtol=1e-2, atol=1e-3)  # one per sample
    assert factors.max() <= 1.5 * 1.001 and factors.min() >= 1 / 1.5 / 1.001
    assert factors[:, 0].std() > 0.1


def test_time_shift_moves_the_whole_sample_and_repeats_the_edge() -> None:
    x = torch.arange(20.0)[None, None].expand(300, 2, 20)
    moved = shift(x, 0.25)
    offsets = set()
    for sample in moved:
        offset = int(20 - 1 - sample[0, -1]) if sample[0, -1] < 19 else -int(sample[0, 0])
        offsets.add(offset)
        expected = (torch.arange(20) - offset).clamp(0, 19).float()
        assert torch.equal(sample, expected.expand(2, 20))
    assert offsets == set(range(-5, 6))


@pytest.mark.parametrize(
    ("kind", "name"), [("series", "rotation_deg"), ("log-mel", "rotation_deg"), ("image", "time_shift")]
)
def test_an_augmentation_that_is_undefined_for_the_kind_is_refused(kind: str, name: str) -> None:
    check_parameters(params(), spec_of(kind))
    with pytest.raises(ParameterError, match=f"train.augment.{name}"):
        check_parameters(params(**{name: 0.5}), spec_of(kind))
