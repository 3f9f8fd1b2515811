"""A fleet of simulated devices that the tests of a module share. It is created once per module and reset per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fleet.embedded import EmbeddedFleet, as_rolled_out, rolled_out


@pytest.fixture(scope="module")
def shared_fleet() -> Iterator[EmbeddedFleet]:
    """A fleet of three devices that run pump@1.0.0 after a first rollout."""
    yield from rolled_out()


@pytest.fixture
def fleet(shared_fleet: EmbeddedFleet) -> EmbeddedFleet:
    """The shared fleet, reset: all devices run pump@1.0.0, no release is marked as bad, the policy is the default."""
    return as_rolled_out(shared_fleet)
