"""What earlier rollouts of a fleet say of a release: it failed the last time, or a wave passed with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet.errors import ConfigurationError, RolloutError
from fleet.records import rollout_folder
from fleet.records.state import DeviceState, RolloutState


@dataclass
class Past:
    """`failed`: release -> where and why; `proven`: releases that a wave passed with, and that did not fail since."""

    failed: dict[str, str] = field(default_factory=dict)
    proven: set[str] = field(default_factory=set)


def of(fleet: str, releases: Collection[str], root: Path) -> Past:
    """Of each of these releases the latest word. A record that cannot be read proves nothing, and is passed over.

    A rollout that was given up has not failed; what passed a wave of it has passed.
    """
    found, left = Past(), set(releases)
    for made in reversed(rollout_folder.rollouts(fleet, root)):
        if not left:
            break
        try:
            text = (made.folder / "state.json").read_bytes()
            if not any(release.encode() in text for release in left):
                continue  # most records need not be parsed
            state = made.load()
        except (OSError, ConfigurationError):
            continue
        if state.status == "failed":
            touched = {device.release for device in state.devices.values() if device.touched} & left
            found.failed |= dict.fromkeys(touched, f"failed in rollout {made.id}: {state.reason}")
            left -= touched
        passed = {device.release for device in state.devices.values() if _passed(state, device)} & left
        found.proven |= passed
        left -= passed
    return found


def _passed(state: RolloutState, device: DeviceState) -> bool:
    return any(wave.name == device.wave and wave.status == "pass" for wave in state.waves)


def refuse_failed(failed: Mapping[str, str], rows: Sequence[str] = ()) -> None:
    """A release that failed is not tried on the devices that were spared. `rows`: said besides. Raises RolloutError."""
    if failed:
        raise RolloutError(
            ", ".join(sorted(failed)),
            "; ".join([*dict.fromkeys(failed.values()), *rows]),
            "a release that did not fail",
            "revert the inventory's `release`, or publish a new version; or try again all the same: --again, "
            "-e rollout_again=true",
        )
