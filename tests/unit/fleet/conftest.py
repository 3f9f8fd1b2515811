"""Rollouts without devices: where they are recorded, one that waits, and one that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fleet.rollouts import NEW, Json, begin, course, declared, done, records, status, through_canary

root = pytest.fixture(records)


@pytest.fixture
def paused(root: Path) -> Json:
    """The canary passed; the rest waits."""
    begun = begin(root, changed={"inventory": str(declared(root)), "outside_window": False}, approve=["rest"])
    through_canary(begun)
    course(begun).open(["b", "c", "d"])
    assert course(begun).close({})["status"] == "paused"
    return begun


@pytest.fixture
def killed(root: Path) -> Json:
    """The canary failed; nobody sent it back."""
    begun = begin(root, changed={"inventory": str(declared(root))})
    course(begun).open(["a"])
    course(begun).judge({"a": done(report={**status(NEW)["report"], "restarts": 3})}, {})
    return begun
