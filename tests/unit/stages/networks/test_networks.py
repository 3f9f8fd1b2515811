"""Test the networks: shapes, preprocessing, recurrent steps, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import torch

from stages import networks
from stages.core.dataset import SampleSpec
from stages.core.errors import ParameterError, StageError
from stages.networks.preprocess import POWER_FLOOR, Preprocess, mel_filters
from tests.support.stages.training import SIZES, samples, spec_of, train_params

KINDS = ("image", "series", "log-mel", "mfcc", "raw")
CASES = [
    ("cnn", {}),
    ("cnn", {"cnn": {"head": "average"}}),
    ("rnn", {"rnn": {"layers": 2}}),
    ("rnn", {"rnn": {"cell": "lstm", "pool": "max", "layers": 2}}),
    ("transformer", {"transformer": {"layers": 2}}),
]


def build_network(kind: str, network: str = "cnn", seed: int = 0, **changes: Any) -> networks.Network:
    if kind == "raw":  # 1200 samples: steps and tokens of 100
        changes = {"rnn": {"frame": 100, "hop": 100}, "transformer": {"patch": 100}, "cnn": {"pool": 4}} | {
            name: {**{"rnn": {"frame": 100, "hop": 100}, "transformer": {"patch": 100}}.get(name, {}), **block}
            for name, block in changes.items()
        }
    torch.manual_seed(seed)
    return networks.build(spec_of(kind), train_params(network, **changes)).eval()


def batch(kind: str, count: int = 3) -> torch.Tensor:
    return torch.from_numpy(samples(kind, count)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("network", "changes"), CASES)
def test_every_network_accepts_every_kind_of_sample(kind: str, network: str, changes: dict[str, Any]) -> None:
    model = build_network(kind, network, **changes)
    x = batch(kind)
    logits = model(x)
    assert logits.shape == (3, len(model.spec.classes))
    assert torch.isfinite(logits).all()
    if network != "rnn":
        assert torch.equal(logits, model.body(model.preprocess(x)))  # export separates the two at the preprocessing
    torch.testing.assert_close(model(x[1:2]), logits[1:2], atol=1e-5, rtol=1e-5)  # samples do not affect each other


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("pool", ["last", "max"])
def test_running_step_by_step_gives_the_same_as_forward(kind: str, cell: str, pool: str) -> None:
    model = build_network(kind, "rnn", rnn={"cell": cell, "pool": pool, "layers": 2})
    assert isinstance(model, networks.Rnn)
    x = batch(kind)
    states = model.initial_states(len(x))
    for number in range(model.steps):
        start = number * model.hop
        frame = x[:, :, start : start + model.frame]
        assert frame.shape[1:] == model.frame_shape
        logits, *states = model.step(frame, *states)
    torch.testing.assert_close(logits, model(x), atol=1e-5, rtol=1e-5)


def test_frames_of_a_series_may_overlap() -> None:
    model = build_network("series", "rnn", rnn={"frame": 6, "hop": 4})
    assert isinstance(model, networks.Rnn)
    assert model.steps == 5  # (24 - 6) // 4 + 1
    x, states = batch("series"), model.initial_states(3)
    for start in range(0, 20, 4):
        logits, *states = model.step(x[:, :, start : start + 6], *states)
    torch.testing.assert_close(logits, model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("cell", "order"), [("gru", (0, 1, 2)), ("lstm", (0, 1, 2, 3))])
def test_cells_agree_with_torch(cell: str, order: tuple[int, ...]) -> None:
    ours = build_network("series", "rnn", rnn={"cell": cell}).body.layers[0]
    theirs = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](3, 16, batch_first=True)
    with torch.no_grad():
        for name, gates in (("ih", ours.inputs), ("hh", ours.recurrent)):
            getattr(theirs, f"weight_{name}_l0").copy_(torch.cat([gates[i].weight for i in order]))
            getattr(theirs, f"bias_{name}_l0").copy_(torch.cat([gates[i].bias for i in order]))
        z = torch.randn(2, 9, 3)
        torch.testing.assert_close(ours.sequence(z), theirs(z)[0], atol=1e-6, rtol=1e-5)


def test_preprocessing_scales_raw_units_per_channel() -> None:
    spec = spec_of("series")
    x = batch("series")
    center, scale = (torch.tensor(values)[None, :, None] for values in (spec.scaling.center, spec.scaling.scale))
    torch.testing.assert_close(Preprocess(spec)(x), (x - center) / scale)


def reference_features(x: np.ndarray, spec: SampleSpec) -> np.ndarray:
    """Compute the features with scipy: spectrogram, mel filters, logarithm, DCT."""
    features = spec.features
    assert features is not None and spec.rate_hz is not None
    _, _, power = scipy.signal.spectrogram(
        x.astype(np.float64),
        spec.rate_hz,
        window=scipy.signal.windows.hann(features.frame, sym=False),
        noverlap=features.frame - features.hop,
        detrend=False,
        scaling="spectrum",
        mode="psd",
    )
    power[:, 1:-1] *= 2  # scipy gives half the square of a tone's amplitude, ours the square
    power[:, [0, -1]] *= 4  # no mirror image: scipy gives the square, ours four times that
    mel = np.log(
        np.einsum("bf,nft->nbt", mel_filters(features.bands, features.frame, spec.rate_hz), power) + POWER_FLOOR
    )
    return mel if features.type == "log-mel" else scipy.fft.dct(mel, axis=1, norm="ortho")[:, : features.coefficients]


@pytest.mark.parametrize("kind", ["log-mel", "mfcc"])
def test_spectral_features_agree_with_scipy(kind: str) -> None:
    x = batch(kind)
    features = Preprocess(spec_of(kind))(x)[:, 0].numpy()
    expected = reference_features(x[:, 0].numpy(), spec_of(kind))
    np.testing.assert_allclose(features, expected, atol=2e-3)


def test_mel_filters_are_evenly_spaced_on_the_mel_scale() -> None:
    filters = mel_filters(bands=20, frame=512, rate_hz=8000)
    assert filters.shape == (20, 257)
    peaks = filters.argmax(axis=1) * 8000 / 512
    mel = 2595 * np.log10(1 + peaks / 700)
    step = 2595 * np.log10(1 + 4000 / 700) / 21
    np.testing.assert_allclose(mel, step * np.arange(1, 21), atol=25)  # half a bin is at most 22 mel
    assert filters.min() >= 0 and filters.max() <= 1


def test_a_full_scale_tone_has_power_one() -> None:
    spec = spec_of("log-mel")
    preprocess = Preprocess(spec)
    time = torch.arange(1200) / 8000
    tone = torch.sin(2 * torch.pi * 1000 * time)[None, None]  # 1000 Hz is bin 16 of 128 at 8 kHz
    spectrum = torch.nn.functional.conv1d(tone, preprocess.features.kernels, stride=64)
    power = (spectrum[:, :65] ** 2 + spectrum[:, 65:] ** 2)[0, 16]
    torch.testing.assert_close(power, torch.ones_like(power), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["log-mel", "mfcc"])
def test_bands_are_scaled_by_the_training_split(kind: str) -> None:
    preprocess = Preprocess(spec_of(kind))
    x = batch(kind, 40)
    preprocess.fit_to_samples([x[:15], x[15:]])
    bands = preprocess(x)
    torch.testing.assert_close(bands.mean(dim=(0, 1, 3)), torch.zeros(bands.shape[2]), atol=1e-4, rtol=0)
    torch.testing.assert_close(bands.std(dim=(0, 1, 3)), torch.ones(bands.shape[2]), atol=1e-2, rtol=0)


def test_quantile_bins_fill_in_order() -> None:
    preprocess = Preprocess(spec_of("series"), bins=4)
    scaled = torch.linspace(-3, 3, 601)
    rows = (
        scaled[None, None] * torch.tensor([1.0, 1.0, 2.0])[None, :, None]
        + torch.tensor([5.0, 0.0, -5.0])[None, :, None]
    )
    preprocess.fit_to_samples([rows])  # quantiles of the scaled values: -3, -1.5, 0, 1.5, 3
    x = torch.tensor([[[2.0], [-2.25], [99.0]]]).expand(1, 3, 24)
    encoded = preprocess(x)[0, :, 0].view(3, 4)
    expected = torch.tensor([[0.0, 0, 0, 0], [0.5, 0, 0, 0], [1, 1, 1, 1]])
    torch.testing.assert_close(encoded, expected, atol=1e-4, rtol=0)
    assert build_network("series", "rnn", quantile_bins=4)(batch("series")).shape == (3, 2)


def test_quantile_bins_of_a_constant_channel_are_finite() -> None:
    preprocess = Preprocess(spec_of("series"), bins=4)
    preprocess.fit_to_samples([torch.full((5, 3, 24), 7.0)])
    assert torch.isfinite(preprocess(torch.full((1, 3, 24), 7.1))).all()


@pytest.mark.parametrize("kind", ["image", "series", "log-mel"])
@pytest.mark.parametrize(("network", "changes"), CASES)
def test_a_saved_network_loads_unchanged_and_saves_to_the_same_bytes(
    kind: str, network: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    model = build_network(kind, network, **changes)
    model.preprocess.fit_to_samples([batch(kind, 20)])
    networks.save(model, tmp_path / "a.pt")
    loaded = networks.load(tmp_path / "a.pt")
    assert not loaded.training
    assert torch.equal(loaded(batch(kind)), model(batch(kind)))
    networks.save(loaded, tmp_path / "another name.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another name.pt").read_bytes()


def test_reading_a_file_runs_no_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"architecture": {}, "weights": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(StageError, match=r"trap\.pt"):
        networks.load(tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [None, b"", b"not a network", b"PK\x03\x04 cut off"])
def test_the_error_names_an_unreadable_file(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StageError, match=r"model\.pt"):
        networks.load(path)


def test_a_scale_of_half_halves_every_width() -> None:
    for network in SIZES:
        full = networks.build(spec_of("image"), train_params(network))
        half = networks.build(spec_of("image"), train_params(network), scale=0.5)
        sizes, halved = full.sizes(), half.sizes()
        for name in ("channels", "hidden", "width", "feedforward"):
            if name in sizes:
                assert np.array_equal(np.array(halved[name]) * 2, sizes[name])
        assert half(batch("image")).shape == (3, 10)


@pytest.mark.parametrize(
    ("network", "changes", "parameter"),
    [
        ("cnn", {"cnn": {"channels": [8, 8, 8, 8]}}, "train.cnn.channels"),
        ("rnn", {"rnn": {"frame": 9}}, "train.rnn.frame"),
        ("transformer", {"transformer": {"patch": 9}}, "train.transformer.patch"),
        ("cnn", {"quantile_bins": 4}, "train.quantile_bins"),
    ],
)
def test_the_error_names_a_size_that_does_not_fit_the_sample(
    network: str, changes: dict[str, Any], parameter: str
) -> None:
    with pytest.raises(ParameterError, match=parameter):
        networks.build(spec_of("image"), train_params(network, **changes))
