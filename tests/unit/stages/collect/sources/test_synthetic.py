"""The generator: the same seed gives the same bytes, faults are labelled, drift is seen. And the embedded data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stages.collect import stage as collect
from tests.support.stages.collect import IMAGE, configure, provenance, refuse, succeed, taken

QUIET: dict[str, Any] = {
    "type": "synthetic", "seed": 42, "groups": 3, "rows": 400, "rate_hz": 2.0, "noise": 0.0, "fault_share": 0.0,
    "faults": [], "drift_per_hour": 0.0,
}  # fmt: skip


def made(root: Path, **change: Any) -> np.ndarray:
    """The flow of every group: [groups, rows]."""
    configure(root, made=QUIET | change)
    succeed()
    return taken("made")["flow"].to_numpy().reshape(QUIET["groups"], -1)


def states() -> np.ndarray:
    return taken("made")["state"].to_numpy(zero_copy_only=False).reshape(QUIET["groups"], -1)


def content() -> bytes:
    return (collect.SNAPSHOT / "made/part-00000.parquet").read_bytes()


def test_the_same_seed_gives_the_same_bytes(workspace: Path) -> None:
    noisy = {"noise": 0.2, "fault_share": 0.2, "faults": ["spike", "stuck", "offset"]}
    made(workspace, **noisy)
    first, said = content(), provenance()["sources"]["made"]["origins"]

    made(workspace, **noisy)

    assert content() == first
    assert provenance()["sources"]["made"]["origins"] == said
    made(workspace, **noisy, seed=43)
    assert content() != first
    assert provenance()["sources"]["made"]["origins"][0]["url"] == "synthetic:seed=43"


def test_rows_end_at_the_time_of_the_snapshot(workspace: Path) -> None:
    made(workspace)

    times = taken("made")["time"].to_numpy().reshape(3, -1)
    assert (np.diff(times, axis=1) == np.timedelta64(500, "ms")).all()
    assert (times[:, -1] == np.datetime64("2026-10-31T23:59:59.500")).all()
    assert taken("made")["machine"].unique().to_pylist() == ["synthetic-000", "synthetic-001", "synthetic-002"]
    assert set(states().ravel()) == {"0"}


def test_noise_is_as_wide_as_asked_for(workspace: Path) -> None:
    still, noisy = made(workspace), made(workspace, noise=0.3)

    assert np.abs(still).max() <= 1.0
    assert np.std(noisy - still) == pytest.approx(0.3, rel=0.1)


def test_drift_is_seen(workspace: Path) -> None:
    still, drifting = made(workspace), made(workspace, drift_per_hour=18.0)

    assert np.allclose((drifting - still)[:, -1], 18.0 * 399 / 2 / 3600)
    assert np.allclose((drifting - still)[:, 0], 0.0)


@pytest.mark.parametrize("fault", ["spike", "stuck", "offset"])
def test_a_fault_is_in_the_signal_and_in_the_label(workspace: Path, fault: str) -> None:
    """Where nothing is labelled nothing differs; where a fault is labelled one channel shows it."""
    made(workspace)
    still = np.stack([taken("made")[name].to_numpy() for name in ("flow", "pressure")], axis=1)

    made(workspace, fault_share=0.3, faults=[fault])

    faulty = np.stack([taken("made")[name].to_numpy() for name in ("flow", "pressure")], axis=1)
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


def test_faults_last_as_long_as_asked_for(workspace: Path) -> None:
    made(workspace, rows=40_000, fault_share=0.3, faults=["offset"])

    assert (states() == "1").mean() == pytest.approx(0.3, abs=0.02)


def test_faults_of_no_kind(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(workspace, made=QUIET | {"fault_share": 0.1})

    assert "fault_share is above 0 and `faults:` is empty" in refuse(capsys)


def test_more_rows_than_anybody_means(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(workspace, made=QUIET | {"groups": 1000, "rows": 2_000_000, "rate_hz": 1000.0})

    assert "groups * rows of at most 1e+08; found 2e+09" in refuse(capsys)


def test_only_series_are_made(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(workspace, data=IMAGE, made=QUIET)

    assert "data.kind is image" in refuse(capsys)


def test_embedded_digits_are_those_of_scikit_learn(workspace: Path) -> None:
    succeed()

    digits = load_digits()
    assert taken("digits")["values"].to_pylist() == digits.data.tolist()
    assert taken("digits")["digit"].to_pylist() == [str(digit) for digit in digits.target]
    assert len(taken("digits")["sample_id"].unique()) == 1797
    assert provenance()["sources"]["digits"]["origins"][0]["url"].startswith("pkg:pypi/scikit-learn@")
