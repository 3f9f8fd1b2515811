"""The name of a release has one grammar in every part of the agent."""

from __future__ import annotations

import argparse
import itertools

import pytest
from edge_agent.cli import main
from edge_agent.core.errors import NoReleaseError
from edge_agent.core.release import LONGEST, parse_release, precedence
from edge_agent.update import trust

GOOD = ["pump@1.0.0", "a-1@0.0.1-rc.1+build.7", f"{'n' * (LONGEST - 6)}@1.0.0"]
BAD = [
    "pump",
    "pump@1.0",
    "pump@01.0.0",
    "pump.x@1.0.0",
    "pump_x@1.0.0",
    "Pump@1.0.0",
    "-p@1.0.0",
    "pump@1.0.0\n",
    "pump@1.0.0-01",
    "pump@1.0.0+",
    "pump@\u0661.0.0",
    f"{'n' * (LONGEST - 5)}@1.0.0",
]


@pytest.mark.parametrize("release", GOOD)
def test_every_part_accepts_the_same_names(release: str) -> None:
    assert parse_release(release) is not None
    assert main._release(release) == release
    assert "@".join(trust.split_release(release)) == release


@pytest.mark.parametrize("release", BAD)
def test_every_part_refuses_the_same_names(release: str) -> None:
    assert parse_release(release) is None
    with pytest.raises(argparse.ArgumentTypeError):
        main._release(release)
    with pytest.raises(NoReleaseError):
        trust.split_release(release)


def test_versions_have_their_precedence() -> None:
    ordered = ["p@1.0.0-alpha", "p@1.0.0-alpha.1", "p@1.0.0-beta.2", "p@1.0.0-beta.11", "p@1.0.0", "p@1.10.0"]

    assert all(precedence(lower) < precedence(higher) for lower, higher in itertools.pairwise(ordered))
