"""Rollouts without devices: where they are recorded, one that waits, and one that was killed."""

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
    """The canary passed; the rest waits."""
    begun = begin(root, changed={"inventory": str(declared(root)), "outside_window": False}, approve=["rest"])
    through_canary(begun)
    controller(begun).open_wave(["b", "c", "d"])
    assert controller(begun).close({}).status == "paused"
    return begun


@pytest.fixture
def killed(root: Path) -> PreflightResult:
    """The canary failed; nobody sent it back."""
    begun = begin(root, changed={"inventory": str(declared(root))})
    controller(begun).open_wave(["a"])
    controller(begun).judge_wave({"a": done(report={**status_json(NEW)["report"], "restarts": 3})}, {})
    return begun
