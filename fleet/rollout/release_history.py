"""Determine from a fleet's earlier rollouts whether a release failed in its last rollout or has passed a wave."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet.errors import ConfigurationError, RolloutError
from fleet.records import rollout_folder
from fleet.records.state import DeviceState, RolloutState


@dataclass
class ReleaseHistory:
    """The latest result of each release in a fleet's rollouts.

    Attributes:
        failed: Releases whose last rollout failed, each with the reason.
        proven: Releases that passed a wave and have not failed since then.
    """

    failed: dict[str, str] = field(default_factory=dict)
    proven: set[str] = field(default_factory=set)


def load(fleet: str, releases: Collection[str], root: Path) -> ReleaseHistory:
    """Return the latest result of each of these releases in the fleet's rollouts.

    A record that cannot be read is ignored. An abandoned rollout does not count as failed. If a release passed a wave
    of an abandoned rollout, the release counts as proven.

    Args:
        fleet: The fleet's name.
        releases: The releases to look up.
        root: The folder that contains all rollout records.
    """
    history, remaining = ReleaseHistory(), set(releases)
    for record in reversed(rollout_folder.rollouts(fleet, root)):
        if not remaining:
            break
        try:
            text = (record.folder / "state.json").read_bytes()
            if not any(release.encode() in text for release in remaining):
                continue  # a record that does not mention a release need not be parsed
            state = record.load()
        except (OSError, ConfigurationError):
            continue
        if state.status == "failed":
            touched = {device.release for device in state.devices.values() if device.touched} & remaining
            history.failed |= dict.fromkeys(touched, f"failed in rollout {record.id}: {state.reason}")
            remaining -= touched
        passed = {device.release for device in state.devices.values() if _passed(state, device)} & remaining
        history.proven |= passed
        remaining -= passed
    return history


def _passed(state: RolloutState, device: DeviceState) -> bool:
    return any(wave.name == device.wave and wave.status == "pass" for wave in state.waves)


def refuse_failed(failed: Mapping[str, str], rows: Sequence[str] = ()) -> None:
    """Raise RolloutError if there are failed releases, so that they are not tried on further devices.

    Args:
        failed: The failed releases, each with the reason.
        rows: Lines that are added to the error message.
    """
    if failed:
        raise RolloutError(
            ", ".join(sorted(failed)),
            "; ".join([*dict.fromkeys(failed.values()), *rows]),
            "a release that did not fail",
            "revert the inventory's `release`, or publish a new version; or try the release again: --again, "
            "-e rollout_again=true",
        )
