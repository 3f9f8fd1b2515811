"""A fleet of simulated devices that tests of playbooks and of rollouts share: made once per module, reset per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fleet.embedded import EmbeddedFleet, as_rolled_out, rolled_out


@pytest.fixture(scope="module")
def made() -> Iterator[EmbeddedFleet]:
    """Three devices that run pump@1.0.0, rolled out by the first rollout."""
    yield from rolled_out()


@pytest.fixture
def fleet(made: EmbeddedFleet) -> EmbeddedFleet:
    """All devices are up, on the release that they ran before, none marked as bad; the rules are the usual ones."""
    return as_rolled_out(made)
