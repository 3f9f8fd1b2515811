"""The generator: equal seeds give equal bytes, faults are labelled, drift is added. Also the embedded data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stages.collect import stage as collect
from tests.support.stages.collect import IMAGE, configure, provenance, read_snapshot, refuse, succeed

QUIET: dict[str, Any] = {
    "type": "synthetic", "seed": 42, "groups": 3, "rows": 400, "rate_hz": 2.0, "noise": 0.0, "fault_share": 0.0,
    "faults": [], "drift_per_hour": 0.0,
}  # fmt: skip


def generated(root: Path, **change: Any) -> np.ndarray:
    """The flow of every group: [groups, rows]."""
    configure(root, generated=QUIET | change)
    succeed()
    return read_snapshot("generated")["flow"].to_numpy().reshape(QUIET["groups"], -1)


def states() -> np.ndarray:
    return read_snapshot("generated")["state"].to_numpy(zero_copy_only=False).reshape(QUIET["groups"], -1)


def content() -> bytes:
    return (collect.SNAPSHOT / "generated/part-00000.parquet").read_bytes()


def test_the_same_seed_gives_the_same_bytes(workspace: Path) -> None:
    noisy = {"noise": 0.2, "fault_share": 0.2, "faults": ["spike", "stuck", "offset"]}
    generated(workspace, **noisy)
    first, origins = content(), provenance()["sources"]["generated"]["origins"]

    generated(workspace, **noisy)

    assert content() == first
    assert provenance()["sources"]["generated"]["origins"] == origins
    generated(workspace, **noisy, seed=43)
    assert content() != first
    assert provenance()["sources"]["generated"]["origins"][0]["url"] == "synthetic:seed=43"


def test_rows_end_at_the_time_of_the_snapshot(workspace: Path) -> None:
    generated(workspace)

    times = read_snapshot("generated")["time"].to_numpy().reshape(3, -1)
    assert (np.diff(times, axis=1) == np.timedelta64(500, "ms")).all()
    assert (times[:, -1] == np.datetime64("2026-10-31T23:59:59.500")).all()
    assert read_snapshot("generated")["machine"].unique().to_pylist() == [
        "synthetic-000",
        "synthetic-001",
        "synthetic-002",
    ]
    assert set(states().ravel()) == {"0"}


def test_noise_has_the_configured_deviation(workspace: Path) -> None:
    still, noisy = generated(workspace), generated(workspace, noise=0.3)

    assert np.abs(still).max() <= 1.0
    assert np.std(noisy - still) == pytest.approx(0.3, rel=0.1)


def test_drift_is_added(workspace: Path) -> None:
    still, drifting = generated(workspace), generated(workspace, drift_per_hour=18.0)

    assert np.allclose((drifting - still)[:, -1], 18.0 * 399 / 2 / 3600)
    assert np.allclose((drifting - still)[:, 0], 0.0)


@pytest.mark.parametrize("fault", ["spike", "stuck", "offset"])
def test_a_fault_is_in_the_signal_and_in_the_label(workspace: Path, fault: str) -> None:
    """Unlabelled rows equal the signal without faults; labelled rows differ in one channel."""
    generated(workspace)
    still = np.stack([read_snapshot("generated")[name].to_numpy() for name in ("flow", "pressure")], axis=1)

    generated(workspace, fault_share=0.3, faults=[fault])

    faulty = np.stack([read_snapshot("generated")[name].to_numpy() for name in ("flow", "pressure")], axis=1)
    labelled = states().ravel() == "1"
    difference = np.abs(faulty - still)
    assert labelled.any()
    assert (difference[~labelled] == 0).all()
    runs = difference.reshape(-1, 20, 2)[labelled.reshape(-1, 20).all(axis=1)]
    shown = runs.max(axis=2)
    if fault == "stuck":
        values = faulty.reshape(-1, 20, 2)[labelled.reshape(-1, 20).all(axis=1)]
        assert ((np.ptp(values, axis=1) == 0).sum(axis=1) == 1).all()
    else:
        assert np.allclose(shown, 5.0 if fault == "spike" else 3.0)


def test_faults_have_the_configured_share(workspace: Path) -> None:
    generated(workspace, rows=40_000, fault_share=0.3, faults=["offset"])

    assert (states() == "1").mean() == pytest.approx(0.3, abs=0.02)


def test_a_fault_share_without_kinds_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(workspace, generated=QUIET | {"fault_share": 0.1})

    assert "fault_share is above 0, but `faults:` is empty" in refuse(capsys)


def test_too_many_rows_are_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(workspace, generated=QUIET | {"groups": 1000, "rows": 2_000_000, "rate_hz": 1000.0})

    assert "groups * rows of at most 1e+08, not 2e+09" in refuse(capsys)


def test_only_series_are_generated(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(workspace, data=IMAGE, generated=QUIET)

    assert "data.kind is image" in refuse(capsys)


def test_embedded_digits_are_those_of_scikit_learn(workspace: Path) -> None:
    succeed()

    digits = load_digits()
    assert read_snapshot("digits")["values"].to_pylist() == digits.data.tolist()
    assert read_snapshot("digits")["digit"].to_pylist() == [str(digit) for digit in digits.target]
    assert len(read_snapshot("digits")["sample_id"].unique()) == 1797
    assert provenance()["sources"]["digits"]["origins"][0]["url"].startswith("pkg:pypi/scikit-learn@")
