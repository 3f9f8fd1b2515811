"""The table of how long test modules take names modules that exist."""

from __future__ import annotations

from tests.support.tiers import SECONDS, TESTS


def test_every_module_with_a_time_exists() -> None:
    assert [name for name in SECONDS if not (TESTS / name).is_file()] == []
