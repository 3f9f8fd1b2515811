"""Which release a device may run without a trial: one that was confirmed on it, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_agent import operations, switching
from edge_agent.errors import NoReleaseError, SelfTestError, TrialError

from tests.agent_cli import Device
from tests.agent_releases import Releases

OLD, NEW, OTHER = "pump@1.0.0", "pump@1.1.0", "pump@1.2.0"


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    made = Releases(tmp_path)
    made.publish(OLD)
    made.publish(NEW)
    return made


@pytest.fixture
def device(tmp_path: Path, releases: Releases) -> Iterator[Device]:
    """`OLD` is confirmed, `NEW` installed."""
    made = Device(tmp_path / "device", releases.repository)
    operations.deploy(made.config, OLD, selftest=False)
    operations.confirm(made.config, force=True)
    operations.install(made.config, NEW)
    yield made
    made.remove()


def test_going_back_to_what_never_ran_here_is_a_trial(device: Device) -> None:
    told = device.json("rollback", "--to", NEW, "--reason", "noisy")

    assert (told["release"], told["left"], told["changed"], told["trial"]) == (NEW, OLD, True, True)
    known = device.known
    assert known.trial is not None and known.trial.release == NEW
    assert (known.previous, known.bad) == (None, {OLD: "noisy"}), "nobody goes back to what is bad"


def test_going_back_to_what_fails_its_self_test_changes_nothing(device: Device, releases: Releases) -> None:
    releases.publish(OTHER, targets=("tflite-int8",), fault="crashing")
    operations.install(device.config, OTHER)
    before = device.known

    with pytest.raises(SelfTestError, match="killed its process"):
        switching.rollback(device.config, OTHER)
    assert device.known == before


def test_going_back_to_a_bad_release_is_refused(device: Device) -> None:
    switching.activate(device.config, NEW, selftest=False)
    operations.confirm(device.config, force=True)
    switching.rollback(device.config, reason="noisy")

    with pytest.raises(TrialError, match="noisy"):
        switching.rollback(device.config, NEW)
    assert device.known.current == OLD


def test_going_back_to_what_was_confirmed_here_is_at_once(device: Device) -> None:
    switching.activate(device.config, NEW, selftest=False)
    operations.confirm(device.config, force=True)
    switching.rollback(device.config)
    assert (device.known.current, device.known.previous) == (OLD, None)

    with pytest.raises(NoReleaseError, match=f"confirmed here once: {NEW}"):
        switching.rollback(device.config)
    told = switching.rollback(device.config, NEW)
    assert (told["release"], told["trial"]) == (NEW, False)
    assert device.known.trial is None


def test_activating_what_a_trial_would_go_back_to_ends_the_trial(device: Device) -> None:
    switching.activate(device.config, NEW, selftest=False)

    told = switching.activate(device.config, OLD)

    assert (told["changed"], told["trial"], told["selftest"]) == (True, False, None)
    assert (device.known.current, device.known.previous, device.known.trial) == (OLD, None, None)
    assert device.call("activate", OLD).stdout.startswith(f"{OLD} is current already\n")
