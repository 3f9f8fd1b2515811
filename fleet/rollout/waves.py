"""Plan the waves of a rollout: which devices are updated together, and in which order. All functions are pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from fleet.errors import InventoryError
from fleet.inventory.model import Device
from fleet.inventory.rollout_policy import RolloutPolicy, WaveRule


@dataclass(frozen=True)
class PlannedWave:
    """A planned wave: devices that are updated together.

    Attributes:
        name: The wave's name.
        devices: The names of the wave's devices, in the order in which they are shown.
        approve: Whether the wave needs an approval.
        approval_reason: Why the wave needs an approval that the rollout policy does not require; empty if the policy
            requires the approval, or if none is needed.
        canary: Whether this is the fleet's first wave, or the first wave that receives a release.
        absent: Devices of the first wave that cannot be updated. The wave must be complete if one of its releases has
            not passed a wave before.
    """

    name: str
    devices: tuple[str, ...]
    approve: bool
    approval_reason: str = ""
    canary: bool = False
    absent: tuple[str, ...] = ()


def plan_waves(devices: Sequence[Device], policy: RolloutPolicy, fleet_size: int) -> list[PlannedWave]:
    """Assign each device to exactly one wave, and return the waves. Waves without devices are omitted.

    Args:
        devices: The devices to update.
        policy: The fleet's rollout policy.
        fleet_size: The number of devices in the fleet. Percentages refer to this number, so the size of a wave
            does not depend on how many devices are up to date.

    Raises:
        InventoryError: The policy leaves a device without a wave.
    """
    if policy.waves is None:
        by_wave = sorted(devices, key=lambda device: device.wave)
        return [_planned_wave(name, list(chosen), policy) for name, chosen in groupby(by_wave, key=_numbered_wave)]
    remaining, planned = list(devices), []
    for rule in policy.waves:
        chosen = _choose(rule, remaining, fleet_size)
        remaining = [device for device in remaining if device not in chosen]
        if chosen:
            planned.append(_planned_wave(rule.name, chosen, policy))
    if remaining:
        names = ", ".join(device.name for device in remaining[:5]) + (" ..." if len(remaining) > 5 else "")
        raise InventoryError(
            "rollout.waves",
            f"{len(remaining)} device(s) are in no wave: {names}",
            "a wave for every device",
            "add a last wave for all other devices: {name: rest, rest: true}",
        )
    return planned


def plan_limited_waves(
    devices: Sequence[Device],
    policy: RolloutPolicy,
    fleet_size: int,
    *,
    selected: Collection[str],
    excluded: Collection[str] = (),
    current: Collection[str] = (),
    proven: Collection[str] = (),
) -> list[PlannedWave]:
    """Plan the waves of all devices, then keep only the devices that this rollout updates.

    Because the waves are planned before devices are left out, --limit does not turn other devices into canaries.
    If a release first appears in a wave other than the fleet's first wave, that wave needs an approval.

    Args:
        devices: All devices that declare a release.
        policy: The fleet's rollout policy.
        fleet_size: The number of devices in the fleet.
        selected: Names of the devices that the rollout may update.
        excluded: Names of the devices that cannot be updated.
        current: Names of the devices that already run their release.
        proven: Releases that passed a wave of an earlier rollout.
    """
    first = policy.waves[0].name if policy.waves else "wave-0"
    release_of = {device.name: str(device.release) for device in devices}
    planned, tried = [], set(proven)
    for wave in plan_waves([device for device in devices if device.name not in current], policy, fleet_size):
        chosen = [name for name in wave.devices if name in selected]
        changing = tuple(name for name in chosen if name not in excluded)
        absent = tuple(name for name in chosen if name in excluded)
        required = chosen if wave.name == first else changing
        untried = sorted({release_of[name] for name in required} - tried)
        planned.append(_limited_wave(wave, changing, absent, untried, is_first=wave.name == first))
        tried |= {release_of[name] for name in changing}
    return planned


def _limited_wave(
    wave: PlannedWave, changing: tuple[str, ...], absent: tuple[str, ...], untried: Sequence[str], is_first: bool
) -> PlannedWave:
    """Return a wave with only the devices to update.

    `untried` lists the releases that no earlier wave has received. A wave with such releases is a canary wave. If it is
    the first wave of the rollout, it needs all its devices; a later wave needs an approval.
    """
    limited = replace(wave, devices=changing, canary=is_first or bool(untried))
    if not untried:
        return limited
    if is_first:
        return replace(limited, absent=absent)
    return replace(limited, approve=True, approval_reason=f"no canary has run {', '.join(untried)}")


def wave_names(devices: Sequence[Device], policy: RolloutPolicy) -> list[str]:
    """Return the names of all waves of the fleet."""
    return [rule.name for rule in policy.waves or ()] or sorted({_numbered_wave(device) for device in devices})


def check_wave_names(devices: Sequence[Device], policy: RolloutPolicy, where: str) -> None:
    """Check that the groups, device types and waves that the policy refers to exist.

    A wave with a misspelt group would be empty, so the next wave would be updated first, without canaries. If `approve`
    had a misspelt wave name, the rollout would not wait for that approval.

    Args:
        devices: The whole fleet.
        policy: The fleet's rollout policy.
        where: The location of the policy, for the error message.

    Raises:
        InventoryError: A name does not exist.
    """
    existing = {
        "group": {group for device in devices for group in device.groups},
        "device_type": {device.type for device in devices},
    }
    for rule in policy.waves or ():
        for field, names in existing.items():
            name = getattr(rule, field)
            if name is not None and name not in names:
                raise InventoryError(
                    f"{where}.waves: {rule.name}: {field}",
                    f"{name}, which has no device",
                    f"one of: {', '.join(sorted(names))}",
                    "correct the name, or remove the wave",
                )
    waves = wave_names(devices, policy)
    if unknown := [name for name in policy.approve if name not in waves]:
        raise InventoryError(
            f"{where}.approve",
            f"{', '.join(unknown)}, which is not a wave",
            f"one of: {', '.join(waves)}",
            "correct the name",
        )


def check_approvals(approve: Collection[str], devices: Sequence[Device], policy: RolloutPolicy, path: Path) -> None:
    """Check that every wave that the operator approves exists.

    Args:
        approve: Names of the waves that the operator approves.
        devices: The whole fleet.
        policy: The fleet's rollout policy.
        path: The inventory's path, for the error message.

    Raises:
        InventoryError: A wave does not exist.
    """
    waves = wave_names(devices, policy)
    if unknown := sorted(set(approve) - set(waves)):
        raise InventoryError(
            "--approve",
            f"{', '.join(unknown)}, which is not a wave of {path}",
            f"one of: {', '.join(waves)}",
            "correct the name",
        )


def _numbered_wave(device: Device) -> str:
    """Return the name of a device's wave in a fleet whose rollout policy does not define waves."""
    return f"wave-{device.wave}"


def _planned_wave(name: str, devices: Sequence[Device], policy: RolloutPolicy) -> PlannedWave:
    return PlannedWave(name, tuple(device.name for device in devices), name in policy.approve)


def _choose(rule: WaveRule, remaining: Sequence[Device], fleet_size: int) -> list[Device]:
    """Return the devices that a wave rule selects from the devices that are in no wave yet."""
    if rule.group is not None:
        return [device for device in remaining if rule.group in device.groups]
    if rule.device_type is not None:
        return [device for device in remaining if device.type == rule.device_type]
    if rule.per_type is not None:
        return [
            device
            for kind in dict.fromkeys(device.type for device in remaining)
            for device in [each for each in remaining if each.type == kind][: rule.per_type]
        ]
    if rule.count is not None:
        return list(remaining[: rule.count])
    if rule.percent is not None:
        return list(remaining[: max(1, fleet_size * rule.percent // 100)])
    return list(remaining)
