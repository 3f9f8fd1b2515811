"""Features that show drift, their counts in fixed bins, and the reference."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from edge_agent.monitoring import drift

from stages.core.dataset import Channel, SampleSpec, Scaling, Split
from stages.prepare.drift_reference import build_reference


def _spec(channels: list[str], classes: list[str], length: int) -> SampleSpec:
    return SampleSpec(
        kind="series",
        shape=[len(channels), length],
        channels=[Channel(name=name, unit="bar") for name in channels],
        classes=classes,
        rate_hz=1.0,
        scaling=Scaling(method="none", center=[0.0] * len(channels), scale=[1.0] * len(channels)),
    )


def _split(x: np.ndarray, y: np.ndarray) -> Split:
    return Split(x=x, y=y, group=np.array(["g"] * len(y)), starts=None, window=None)


@pytest.mark.parametrize("shape", [(5, 2, 7), (5, 2, 3, 4)])
def test_features_are_mean_and_std_of_each_channel(shape: tuple[int, ...]) -> None:
    # given
    x = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    # when
    result = drift.features(x)
    # then
    axes = tuple(range(1, len(shape) - 1))
    for channel in range(2):
        assert result[:, 2 * channel] == pytest.approx(x[:, channel].mean(axis=axes, dtype=np.float64))
        assert result[:, 2 * channel + 1] == pytest.approx(x[:, channel].std(axis=axes, dtype=np.float64))


def test_bins_hold_their_lower_edge_and_no_nan() -> None:
    # given values below, on, between and above two edges, and NaN
    values = np.array([-5.0, 1.0, 1.5, 2.0, 9.0, np.inf, -np.inf, np.nan])
    # when, then
    assert drift.bin_counts(values, [1.0, 2.0]).tolist() == [2, 2, 3]
    assert drift.bin_counts(np.zeros(0), [1.0, 2.0]).tolist() == [0, 0, 0]


def test_the_reference_has_bins_of_equal_share_and_the_labels() -> None:
    # given a thousand windows of two channels, three quarters of class "ok"
    rng = np.random.default_rng(1)
    x = rng.normal([[0], [50]], 1, (1000, 2, 16)).astype(np.float32)
    y = (np.arange(1000) % 4 == 0).astype(np.int64)
    # when
    reference = build_reference(_split(x, y), _spec(["a", "b"], ["ok", "bad"], 16), bins=10, limit=5000)
    # then
    assert [feature["name"] for feature in reference["features"]] == ["a.mean", "a.std", "b.mean", "b.std"]
    assert reference["samples"] == 1000
    assert reference["labels"] == {"ok": 0.75, "bad": 0.25}
    for feature in reference["features"]:
        assert len(feature["edges"]) == 9
        assert feature["edges"] == sorted(feature["edges"])
        assert feature["ratios"] == pytest.approx([0.1] * 10, abs=0.002)


def test_the_reference_of_many_samples_takes_some_of_all() -> None:
    # given samples that rise from first to last
    x = np.repeat(np.arange(1000, dtype=np.float32), 4).reshape(1000, 1, 4)
    # when
    reference = build_reference(_split(x, np.arange(1000) % 2), _spec(["a"], ["x", "y"], 4), bins=4, limit=100)
    # then
    assert reference["samples"] == 100
    assert reference["features"][0]["edges"] == pytest.approx([250, 500, 750], abs=10)


def test_a_feature_of_few_values_gets_few_bins() -> None:
    # given one value in nine of ten samples
    x = np.ones((100, 1, 4), dtype=np.float32)
    x[::10] = 2
    # when
    mean = build_reference(_split(x, np.arange(100) % 2), _spec(["a"], ["x", "y"], 4), bins=10, limit=100)["features"][
        0
    ]
    # then
    assert len(mean["ratios"]) == len(mean["edges"]) + 1
    assert sum(mean["ratios"]) == pytest.approx(1)
    assert mean["edges"] == sorted(set(mean["edges"]))


def test_devices_need_numpy_only() -> None:
    tree = ast.parse(Path(drift.__file__).read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "numpy"}
