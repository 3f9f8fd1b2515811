"""A device runs a release without a trial only if that release was confirmed on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_agent.core import state
from edge_agent.core.errors import BusyError, NoReleaseError, SelfTestError, ServiceError, TrialError
from edge_agent.lifecycle import operations, switching
from edge_agent.storage import slots

from tests.support.agent.cli import Device
from tests.support.agent.releases import NEW, OLD, Releases, confirmed_device, two_releases

pytestmark = pytest.mark.slow  # each starts a self-test

OTHER = "pump@1.2.0"


releases = pytest.fixture(two_releases)


@pytest.fixture
def device(tmp_path: Path, releases: Releases) -> Iterator[Device]:
    """`OLD` is confirmed, `NEW` installed."""
    with confirmed_device(tmp_path, releases) as device:
        operations.install(device.config, NEW)
        yield device


def test_a_rollback_to_a_release_that_never_ran_here_is_a_trial(device: Device) -> None:
    result = device.json("rollback", "--to", NEW, "--reason", "noisy")

    assert (result["release"], result["left"], result["changed"], result["trial"]) == (NEW, OLD, True, True)
    known_state = device.state
    assert known_state.trial is not None and known_state.trial.release == NEW
    assert (known_state.previous, known_state.bad) == (None, {OLD: "noisy"}), "no rollback returns to a bad release"


def test_a_rollback_to_a_release_that_fails_its_self_test_changes_nothing(device: Device, releases: Releases) -> None:
    releases.publish(OTHER, targets=("tflite-int8",), fault="crashing")
    operations.install(device.config, OTHER)
    before = device.state

    with pytest.raises(SelfTestError, match="crashed its process"):
        switching.rollback(device.config, OTHER)
    assert device.state == before


def test_a_rollback_to_a_bad_release_is_refused(device: Device) -> None:
    switching.activate(device.config, NEW, selftest=False)
    operations.confirm(device.config, force=True)
    switching.rollback(device.config, reason="noisy")

    with pytest.raises(TrialError, match="noisy"):
        switching.rollback(device.config, NEW)
    assert device.state.current == OLD


def test_a_rollback_to_a_release_that_was_confirmed_here_needs_no_trial(device: Device) -> None:
    switching.activate(device.config, NEW, selftest=False)
    operations.confirm(device.config, force=True)
    switching.rollback(device.config)
    assert (device.state.current, device.state.previous) == (OLD, None)

    with pytest.raises(NoReleaseError, match=f"confirmed on this device: {NEW}"):
        switching.rollback(device.config)
    result = switching.rollback(device.config, NEW)
    assert (result.release, result.trial) == (NEW, False)
    assert device.state.trial is None


def test_activating_the_previous_release_ends_the_trial(device: Device) -> None:
    switching.activate(device.config, NEW, selftest=False)

    result = switching.activate(device.config, OLD)

    assert (result.changed, result.trial, result.selftest) == (True, False, None)
    assert (device.state.current, device.state.previous, device.state.trial) == (OLD, None, None)
    assert device.call("activate", OLD).stdout.startswith(f"{OLD} is already current\n")


def test_the_lock_is_free_during_a_self_test_and_a_switch_of_another_process_is_detected(device: Device) -> None:
    """A service that starts while a release is tried must not wait for it."""

    def report_step(text: str) -> None:
        if text.startswith("self-test"):
            with state.locked(device.config.layout, wait_s=0.0):
                state.save(device.config.layout, device.state.rolled_back("another process's decision"))

    with pytest.raises(BusyError, match="changed by another process during this command; no release is now current"):
        switching.activate(device.config, NEW, report_step=report_step)
    assert device.state.current is None


def test_a_slot_that_is_removed_during_a_self_test_is_not_switched_to(device: Device) -> None:
    def report_step(text: str) -> None:
        if text.startswith("switching"):
            with state.locked(device.config.layout):
                slots.remove(device.config.layout, NEW)

    with pytest.raises(NoReleaseError, match="removed during the self-test"):
        switching.activate(device.config, NEW, selftest=False, report_step=report_step)
    assert device.state.current == OLD


def test_activating_a_current_release_that_cannot_be_loaded_is_an_error(device: Device) -> None:
    next(device.config.layout.bundle(OLD).glob("targets/*/*")).write_bytes(b"not a model")
    with device.serving() as served:
        served.ready()
        error = device.json("activate", OLD, code=ServiceError.exit_code)

    assert "current, but not loaded: " in error["found"]
    assert f"edge-agent install {OLD}" in error["remedy"]


def test_prune_removes_interrupted_downloads(device: Device) -> None:
    layout = device.config.layout
    layout.incoming.mkdir(exist_ok=True)
    partial = layout.incoming / f".{'0' * 64}.partial"
    partial.write_bytes(b"x" * 1000)

    with state.locked(layout, file=layout.install_lock):
        assert operations.prune(device.config).incoming_bytes == 0, "a download that goes on keeps what it has"
    assert partial.exists()
    assert device.json("prune")["incoming_bytes"] >= 1000
    assert list(layout.incoming.iterdir()) == []
