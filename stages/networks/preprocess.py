"""The first layer of every network, which preprocesses samples in raw units.

Preprocessing is part of the exported graph, so a device preprocesses samples exactly as training did.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.core.dataset import AudioFeatures, SampleSpec

# Added to the power before the logarithm: -60 dB relative to a full-scale tone. The logarithm of digital silence is
# then finite, and close to the value for a quiet room.
POWER_FLOOR = 1e-6


class Preprocess(nn.Module):
    """The first layer of a network, which scales raw samples and computes their spectral features or quantile bins.

    Every channel is scaled to (x - center) / scale. If `spec.features` is set, log-mel or MFCC frames are then
    computed, and each of their bands is scaled. If `bins` is not 0, the channels of a series are encoded by
    `QuantileBins` instead of being scaled.

    The input is [B, *spec.shape] in raw units. The output is [B, 1, bands, frames] for spectral features and
    [B, C * bins, T] for quantile bins. If the samples are only scaled, the output has the shape of the input.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, spec: SampleSpec, bins: int = 0) -> None:
        super().__init__()
        self.bins = QuantileBins(spec.shape[0], bins) if bins else None
        broadcast = (1, -1) + (1,) * (len(spec.shape) - 1)
        self.register_buffer("center", torch.tensor(spec.scaling.center, dtype=torch.float32).view(broadcast))
        self.register_buffer("scale", torch.tensor(spec.scaling.scale, dtype=torch.float32).view(broadcast))
        self.features: SpectralFeatures | None = None
        if spec.features is not None:
            assert spec.rate_hz is not None, "features need a sampling rate"
            self.features = SpectralFeatures(spec.features, spec.rate_hz)

    def forward(self, x: Tensor) -> Tensor:
        if self.bins is not None:
            shares: Tensor = self.bins(x)
            return shares
        scaled: Tensor = (x - self.center) / self.scale
        if self.features is None:
            return scaled
        spectrum: Tensor = self.features(scaled)
        return spectrum

    @torch.no_grad()
    def fit_to_samples(self, batches: Iterable[Tensor]) -> None:
        """Fit the layer to batches of training samples [B, *spec.shape] in raw units.

        This sets the scaling of each band of the spectral features, or the edges of the quantile bins. If the layer has
        neither features nor bins, nothing is changed.
        """
        if self.features is not None:
            self._fit_bands(batches)
        if self.bins is not None:
            rows = [batch.transpose(0, 1).flatten(1) for batch in batches]
            self.bins.fit_edges(torch.cat(rows, dim=1), self.scale.flatten())

    def _fit_bands(self, batches: Iterable[Tensor]) -> None:
        assert self.features is not None
        self.features.band_center.zero_()
        self.features.band_scale.fill_(1.0)
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for batch in batches:
            bands = self(batch).double()
            count += bands.shape[0] * bands.shape[3]
            total = total + bands.sum(dim=(0, 1, 3))
            squares = squares + (bands**2).sum(dim=(0, 1, 3))
        mean = total / count
        deviation = (squares / count - mean**2).clamp_min(0).sqrt().clamp_min(1e-3)
        self.features.band_center.copy_(mean.view(1, 1, -1, 1))
        self.features.band_scale.copy_(deviation.view(1, 1, -1, 1))


class QuantileBins(nn.Module):
    """Piecewise linear encoding of a series (Gorishniy et al. 2022): [B, C, T] -> [B, C * bins, T].

    A bin is the interval between two neighbouring quantiles of the channel's values in the training split. The output
    for a bin is 0 if the value is below the bin, 1 if the value is above the bin, and increases linearly in between.

    The values of a machine's sensors can vary much between operating regimes and little within one regime, but the
    small variation within a regime can be the only sign of a fault. Bins are narrow where values are dense, so they
    resolve the small variation.

    The edge of a bin is subtracted from values in raw units, because the difference of two close floating-point numbers
    is exact. If the values were scaled first, a narrow bin would magnify the rounding differences between runtimes.
    """

    edge: Tensor
    slope: Tensor

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("edge", torch.zeros(1, channels, bins, 1))
        self.register_buffer("slope", torch.zeros(1, channels, bins, 1))

    def forward(self, x: Tensor) -> Tensor:
        return ((x.unsqueeze(2) - self.edge) * self.slope).clamp(0.0, 1.0).flatten(1, 2)

    def fit_edges(self, values: Tensor, scale: Tensor) -> None:
        """Set the bins of each channel to the intervals between the quantiles of the channel's raw values [C, N].

        The width of a bin is at least 1/1000 of the channel's `scale` [C].
        """
        edges = np.quantile(values.double().numpy(), np.linspace(0, 1, self.edge.shape[2] + 1), axis=1).T
        width = np.maximum(np.diff(edges, axis=1), 1e-3 * scale.double().numpy()[:, None])
        self.edge.copy_(torch.from_numpy(edges[:, :-1]).float()[None, :, :, None])
        self.slope.copy_(torch.from_numpy(1 / width).float()[None, :, :, None])


class SpectralFeatures(nn.Module):
    """A layer that computes log-mel energies or MFCC with fixed convolutions: [B, 1, T] -> [B, 1, bands, frames].

    A frame has `frame` audio samples, which are multiplied by a periodic Hann window. A frame starts every `hop` audio
    samples. The audio is not padded, so the number of frames is (T - frame) // hop + 1. The steps for each frame are:

    1. the power spectrum from the discrete Fourier transform, in which a tone of amplitude 1 has power 1;
    2. triangular mel filters, which give the power in each band;
    3. the natural logarithm of the power plus POWER_FLOOR;
    4. for MFCC, the orthonormal DCT-II of the logarithms.

    Finally, every band is scaled to (value - band_center) / band_scale.
    """

    kernels: Tensor
    filters: Tensor
    cosines: Tensor
    band_center: Tensor
    band_scale: Tensor

    def __init__(self, features: AudioFeatures, rate_hz: float) -> None:
        super().__init__()
        self.hop = features.hop
        bands = features.bands
        self.register_buffer("kernels", torch.from_numpy(fourier_kernels(features.frame)))
        self.register_buffer("filters", torch.from_numpy(mel_filters(bands, features.frame, rate_hz))[:, :, None])
        if features.type == "mfcc":
            coefficients = features.coefficients or bands
            self.register_buffer("cosines", torch.from_numpy(dct_matrix(coefficients, bands))[:, :, None])
            bands = coefficients
        self.mfcc = features.type == "mfcc"
        self.register_buffer("band_center", torch.zeros(1, 1, bands, 1))
        self.register_buffer("band_scale", torch.ones(1, 1, bands, 1))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = F.conv1d(x, self.kernels, stride=self.hop)
        squared = spectrum * spectrum
        bins = squared.shape[1] // 2
        power = squared[:, :bins] + squared[:, bins:]
        bands = torch.log(F.conv1d(power, self.filters) + POWER_FLOOR)
        if self.mfcc:
            bands = F.conv1d(bands, self.cosines)
        return (bands.unsqueeze(1) - self.band_center) / self.band_scale


def fourier_kernels(frame: int) -> np.ndarray:
    """Return the convolution kernels that compute a frame's windowed DFT: [2 * (frame // 2 + 1), 1, frame] float32.

    The first half of the kernels are cosines and the second half are negative sines, each multiplied by a Hann window.
    The kernels are scaled so that a tone of amplitude 1 has power 1.
    """
    time = np.arange(frame)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * time / frame)
    window *= 2 / window.sum()
    angle = 2 * np.pi * np.outer(np.arange(frame // 2 + 1), time) / frame
    return (np.concatenate([np.cos(angle), -np.sin(angle)]) * window)[:, None, :].astype(np.float32)


def mel_filters(bands: int, frame: int, rate_hz: float) -> np.ndarray:
    """Return triangular filters of height 1, evenly spaced on the mel scale from 0 Hz to half the sampling rate.

    The mel scale is from HTK: mel = 2595 log10(1 + f / 700) (Young et al., The HTK Book, version 3.4, section 5.6).

    Args:
        bands: Number of filters.
        frame: Number of audio samples in a frame.
        rate_hz: Sampling rate in Hz.

    Returns:
        The weight of each DFT bin in each band: [bands, frame // 2 + 1] float32.
    """
    highest = 2595 * math.log10(1 + rate_hz / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, bands + 2) / 2595) - 1)
    frequency = np.arange(frame // 2 + 1) * rate_hz / frame
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def dct_matrix(coefficients: int, bands: int) -> np.ndarray:
    """Return the first rows of the orthonormal DCT-II matrix of size `bands`: [coefficients, bands] float32."""
    order, position = np.arange(coefficients)[:, None], np.arange(bands)[None, :]
    matrix = np.sqrt(2 / bands) * np.cos(np.pi * order * (2 * position + 1) / (2 * bands))
    matrix[0] /= math.sqrt(2)
    narrow: np.ndarray = matrix.astype(np.float32)
    return narrow
