"""A device with a wrong clock uses the last trusted time; a wrong trusted time can be discarded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest
from edge_agent import RELEASED
from edge_agent.core import state
from edge_agent.core.agent_state import State
from edge_agent.core.errors import TrustError
from edge_agent.update import trust
from edge_agent.update.trust import Repository

from tests.support.agent.cli import Device
from tests.support.agent.tuf_repository import TufRepository


def test_a_new_device_uses_no_time_before_the_release_of_its_agent(
    published: TufRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock is earlier (in this test the release is next month), and no metadata was ever verified."""
    released = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    monkeypatch.setattr(trust, "RELEASED", ("2.0.0", f"{released:%Y-%m-%dT%H:%M:%SZ}"))
    published.renew("timestamp", days=25)
    config = published.config(tmp_path / "new")
    for known_state in (State(), State(trusted_time="1970-01-01T00:00:41Z")):
        with pytest.raises(TrustError, match="the role timestamp expired at") as refusal:
            Repository(config, known_state).refresh()
        assert f"earlier than {released:%Y-%m-%dT%H:%M:%SZ}, when this agent was released" in refusal.value.found
    for role in ("targets", "snapshot", "timestamp"):
        published.renew(role, days=60)
    assert Repository(config, State()).refresh() == released


def test_the_date_of_the_release_belongs_to_the_version() -> None:
    version, day = RELEASED
    assert version == metadata.version("edge-agent")
    assert datetime.fromisoformat(day) <= datetime.now(UTC)


def test_a_trusted_time_that_was_ahead_can_be_discarded(published: TufRepository, tmp_path: Path) -> None:
    """The clock was 200 days ahead while all metadata was valid for longer: present metadata is refused since then."""
    device = Device(tmp_path / "device", published)
    ahead = (datetime.now(UTC) + timedelta(days=200)).strftime("%Y-%m-%dT%H:%M:%SZ")
    state.save(device.config.layout, State(bad={"digits@1.0.0": "slow"}, trusted_time=ahead))
    refused = device.json("install", "digits@1.2.0", code=TrustError.exit_code)
    assert "expired at" in refused["found"]
    assert refused["remedy"].endswith("edge-agent forget --trusted-time")

    result = device.json("forget", "--trusted-time")

    assert (result["release"], result["changed"], result["reason"]) == (None, True, ahead)
    assert state.load(device.config.layout) == State(bad={"digits@1.0.0": "slow"})
    assert device.json("forget", "--trusted-time")["changed"] is False
    assert "trusted time" in device.call("forget", "--trusted-time").stdout
    assert device.call("forget").returncode == device.call("forget", "digits@1.0.0", "--trusted-time").returncode == 2
    repository = Repository(device.config, state.load(device.config.layout))
    assert abs(repository.refresh() - datetime.now(UTC)) < timedelta(minutes=5)
