"""Fixtures of rollouts without devices: their folder, a paused one, and one whose controller was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.rollout.step_results import PreflightResult
from tests.support.fleet.rollouts import (
    NEW,
    begin,
    controller,
    declared,
    done,
    records,
    status_json,
    through_canary,
)

root = pytest.fixture(records)


@pytest.fixture
def paused(root: Path) -> PreflightResult:
    """Return a rollout whose canary passed and whose other wave waits for approval."""
    started = begin(root, changed={"inventory": str(declared(root)), "outside_window": False}, approve=["rest"])
    through_canary(started)
    controller(started).open_wave(["b", "c", "d"])
    assert controller(started).close({}).status == "paused"
    return started


@pytest.fixture
def killed(root: Path) -> PreflightResult:
    """Return a rollout whose canary failed and has not rolled back."""
    started = begin(root, changed={"inventory": str(declared(root))})
    controller(started).open_wave(["a"])
    controller(started).judge_wave({"a": done(report={**status_json(NEW)["report"], "restarts": 3})}, {})
    return started
