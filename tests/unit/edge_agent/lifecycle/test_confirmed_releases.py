"""Which release a device may run without a trial: one that was confirmed on it, and no other."""

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

    with pytest.raises(NoReleaseError, match=f"confirmed on this device: {NEW}"):
        switching.rollback(device.config)
    result = switching.rollback(device.config, NEW)
    assert (result.release, result.trial) == (NEW, False)
    assert device.known.trial is None


def test_activating_what_a_trial_would_go_back_to_ends_the_trial(device: Device) -> None:
    switching.activate(device.config, NEW, selftest=False)

    result = switching.activate(device.config, OLD)

    assert (result.changed, result.trial, result.selftest) == (True, False, None)
    assert (device.known.current, device.known.previous, device.known.trial) == (OLD, None, None)
    assert device.call("activate", OLD).stdout.startswith(f"{OLD} is already current\n")


def test_the_lock_is_free_during_a_self_test_and_a_switch_meanwhile_is_noticed(device: Device) -> None:
    """A service that starts while a release is tried must not wait for it."""

    def report_step(text: str) -> None:
        if text.startswith("self-test"):
            with state.locked(device.config.layout, wait_s=0.0):
                state.save(device.config.layout, device.known.rolled_back("another process's decision"))

    with pytest.raises(BusyError, match="changed during this command: no release is current"):
        switching.activate(device.config, NEW, report_step=report_step)
    assert device.known.current is None


def test_a_slot_that_is_removed_during_a_self_test_is_not_switched_to(device: Device) -> None:
    def report_step(text: str) -> None:
        if text.startswith("switching"):
            with state.locked(device.config.layout):
                slots.remove(device.config.layout, NEW)

    with pytest.raises(NoReleaseError, match="removed during the self-test"):
        switching.activate(device.config, NEW, selftest=False, report_step=report_step)
    assert device.known.current == OLD


def test_activating_a_current_release_that_cannot_be_loaded_is_an_error(device: Device) -> None:
    next(device.config.layout.bundle(OLD).glob("targets/*/*")).write_bytes(b"not a model")
    with device.serving() as served:
        served.ready()
        told = device.json("activate", OLD, code=ServiceError.exit_code)

    assert "current, but not loaded: " in told["found"]
    assert f"edge-agent install {OLD}" in told["remedy"]


def test_prune_drops_what_broken_downloads_have_left(device: Device) -> None:
    layout = device.config.layout
    layout.incoming.mkdir(exist_ok=True)
    left = layout.incoming / f".{'0' * 64}.partial"
    left.write_bytes(b"x" * 1000)

    with state.locked(layout, file=layout.install_lock):
        assert operations.prune(device.config).incoming_bytes == 0, "a download that goes on keeps what it has"
    assert left.exists()
    assert device.json("prune")["incoming_bytes"] >= 1000
    assert list(layout.incoming.iterdir()) == []
