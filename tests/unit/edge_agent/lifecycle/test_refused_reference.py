"""A release whose drift reference does not fit is refused before the switch, by the real command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edge_agent.core.errors import SelfTestError

from tests.support.agent.cli import Device
from tests.support.agent.releases import NEW, OLD, Releases, confirmed_device

pytestmark = pytest.mark.slow


def point_to_a_missing_channel(reference: dict[str, Any]) -> None:
    reference["features"][0]["channel"] = 7


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A device on which OLD is confirmed. The repository also has NEW, whose reference names a missing channel."""
    releases = Releases(tmp_path)
    releases.publish(OLD)
    releases.publish(NEW, change_reference=point_to_a_missing_channel)
    with confirmed_device(tmp_path, releases) as made:
        yield made


@pytest.mark.parametrize("options", [(), ("--no-selftest",)])
def test_a_deployment_is_refused_before_the_switch(device: Device, options: tuple[str, ...]) -> None:
    with device.serving() as served:
        served.ready()
        refused = device.json("deploy", NEW, *options, code=SelfTestError.exit_code)
        assert device.json("status")["service"]["loaded"]["release"] == OLD

    assert refused["where"].endswith("drift_reference.json: features.0.channel")
    assert (refused["found"], refused["expected"]) == ("7", "the index of a channel of the manifest: below 2")
    assert (device.state.current, device.state.trial, device.state.bad) == (OLD, None, {})
    assert "rollback" not in served.log


def test_a_comparison_is_refused_too(device: Device) -> None:
    device.json("install", NEW)

    refused = device.json("shadow", NEW, code=SelfTestError.exit_code)

    assert refused["where"].endswith("drift_reference.json: features.0.channel")
