"""From raw units to what a network's body reads, inside the exported graph, so that a device cannot skew it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.core.dataset import AudioFeatures, SampleSpec

POWER_FLOOR = 1e-6  # -60 dB of a full-scale tone: digital silence looks like a quiet room, and stays finite in the log


class Preprocess(nn.Module):
    """(x - center) / scale per channel; with `spec.features`, then log-mel or MFCC frames and a scaling per band;
    with `bins`, instead of all that each channel of a series as `bins` channels, see QuantileBins.

    Input [B, *spec.shape] in raw units. Output the same shape, or with features [B, 1, bands, frames], or with
    bins [B, C * bins, T].
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
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take what the training samples decide (`batches`, in raw units): the scaling per band, the bins' edges."""
        if self.features is not None:
            self._fit_bands(batches)
        if self.bins is not None:
            rows = [batch.transpose(0, 1).flatten(1) for batch in batches]
            self.bins.fit(torch.cat(rows, dim=1), self.scale.flatten())

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
    """Piecewise linear encoding (Gorishniy et al. 2022): per channel and bin between two quantiles of the training
    split how much of the bin lies below the value, 0 to 1. [B, C, T] -> [B, C * bins, T].

    A machine that runs in several regimes has one spread over all of them and another within each; what is small
    beside the first may be all there is to see. Bins are as narrow as the values are dense.
    Values are compared in raw units: of two numbers that are close the difference is exact, so that a narrow bin
    does not enlarge the rounding of one runtime against another.
    """

    edge: Tensor
    slope: Tensor

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("edge", torch.zeros(1, channels, bins, 1))
        self.register_buffer("slope", torch.zeros(1, channels, bins, 1))

    def forward(self, x: Tensor) -> Tensor:
        return ((x.unsqueeze(2) - self.edge) * self.slope).clamp(0.0, 1.0).flatten(1, 2)

    def fit(self, values: Tensor, scale: Tensor) -> None:
        """Edges from raw values [C, N]. A bin is never narrower than 1/1000 of the channel's `scale` [C]."""
        edges = np.quantile(values.double().numpy(), np.linspace(0, 1, self.edge.shape[2] + 1), axis=1).T
        width = np.maximum(np.diff(edges, axis=1), 1e-3 * scale.double().numpy()[:, None])
        self.edge.copy_(torch.from_numpy(edges[:, :-1]).float()[None, :, :, None])
        self.slope.copy_(torch.from_numpy(1 / width).float()[None, :, :, None])


class SpectralFeatures(nn.Module):
    """Log-mel energies or MFCC of [B, 1, T] as convolutions with fixed kernels: [B, 1, bands, frames].

    A frame is `frame` samples under a periodic Hann window, frames start every `hop` samples and none is
    padded: frames = (T - frame) // hop + 1. Power of the discrete Fourier transform of the frame's own
    length (a tone of amplitude 1 has power 1), triangular mel filters, natural logarithm of that plus
    POWER_FLOOR; MFCC is the orthonormal DCT-II of the result.
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
    """Windowed cosines, then sines, of the real DFT, scaled to 1 for a tone: [2 * (frame // 2 + 1), 1, frame]."""
    time = np.arange(frame)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * time / frame)
    window *= 2 / window.sum()
    angle = 2 * np.pi * np.outer(np.arange(frame // 2 + 1), time) / frame
    return (np.concatenate([np.cos(angle), -np.sin(angle)]) * window)[:, None, :].astype(np.float32)


def mel_filters(bands: int, frame: int, rate_hz: float) -> np.ndarray:
    """Triangles of height 1, evenly spaced on the mel scale from 0 Hz to half the rate: [bands, bins] float32.

    Mel scale of HTK: mel = 2595 log10(1 + f / 700) (Young et al., The HTK Book, version 3.4, section 5.6).
    """
    highest = 2595 * math.log10(1 + rate_hz / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, bands + 2) / 2595) - 1)
    frequency = np.arange(frame // 2 + 1) * rate_hz / frame
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def dct_matrix(coefficients: int, bands: int) -> np.ndarray:
    """Orthonormal DCT-II, the first `coefficients` rows: [coefficients, bands] float32."""
    order, place = np.arange(coefficients)[:, None], np.arange(bands)[None, :]
    matrix = np.sqrt(2 / bands) * np.cos(np.pi * order * (2 * place + 1) / (2 * bands))
    matrix[0] /= math.sqrt(2)
    narrow: np.ndarray = matrix.astype(np.float32)
    return narrow
