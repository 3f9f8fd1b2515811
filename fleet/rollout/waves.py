"""Who changes when: devices and rules in, waves out. Pure: the same fleet and rules give the same plan."""

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
    """`devices`: names, in the order in which they are told. `canary`: the first with a release, or the fleet's first.

    `absent`: canaries that cannot take part, where they have to. `why` it asks for approval, where no rule does.
    """

    name: str
    devices: tuple[str, ...]
    approve: bool
    why: str = ""
    canary: bool = False
    absent: tuple[str, ...] = ()


def plan_waves(devices: Sequence[Device], rules: RolloutPolicy, fleet_size: int) -> list[PlannedWave]:
    """Every device of `devices` (those that change) in exactly one wave; waves without a device are left out.

    `fleet_size` is what shares are of: a device that is up to date already makes no wave larger. Raises
    InventoryError where the rules leave devices out.
    """
    if rules.waves is None:
        by_wave = sorted(devices, key=lambda device: device.wave)
        return [_planned(name, list(chosen), rules) for name, chosen in groupby(by_wave, key=_numbered)]
    left, planned = list(devices), []
    for wave in rules.waves:
        chosen = _choose(wave, left, fleet_size)
        left = [device for device in left if device not in chosen]
        if chosen:
            planned.append(_planned(wave.name, chosen, rules))
    if left:
        names = ", ".join(device.name for device in left[:5]) + (" ..." if len(left) > 5 else "")
        raise InventoryError(
            "rollout.waves",
            f"{len(left)} device(s) are in no wave: {names}",
            "every device in one",
            "end with a wave of the rest: {name: rest, rest: true}",
        )
    return planned


def plan_limited_waves(
    devices: Sequence[Device],
    rules: RolloutPolicy,
    fleet_size: int,
    only: Collection[str],
    out: Collection[str] = (),
    current: Collection[str] = (),
    proven: Collection[str] = (),
) -> list[PlannedWave]:
    """The waves of `plan_waves`, of which only those of `only` change: a limit makes nobody a canary.

    `devices`: all that declare a release; `current`: those that run it already; `out`: those that cannot take part.
    `proven`: releases that a wave of an earlier rollout passed with. A wave that is not the fleet's first asks for
    approval where it is the first with a release.
    """
    first = rules.waves[0].name if rules.waves else "wave-0"
    release_of = {device.name: str(device.release) for device in devices}
    planned, tried = [], set(proven)
    for wave in plan_waves([device for device in devices if device.name not in current], rules, fleet_size):
        chosen = [name for name in wave.devices if name in only]
        changing = tuple(name for name in chosen if name not in out)
        absent = tuple(name for name in chosen if name in out)
        needed = chosen if wave.name == first else changing
        untried = sorted({release_of[name] for name in needed} - tried)
        planned.append(_limited(wave, changing, absent, untried, is_first=wave.name == first))
        tried |= {release_of[name] for name in changing}
    return planned


def _limited(
    wave: PlannedWave, changing: tuple[str, ...], absent: tuple[str, ...], untried: Sequence[str], is_first: bool
) -> PlannedWave:
    """The wave of these devices alone. `untried`: releases that no wave has passed with, nor one before this has."""
    limited = replace(wave, devices=changing, canary=is_first or bool(untried))
    if not untried:
        return limited
    if is_first:
        return replace(limited, absent=absent)
    return replace(limited, approve=True, why=f"no canary has run {', '.join(untried)}")


def wave_names(devices: Sequence[Device], rules: RolloutPolicy) -> list[str]:
    """Of the fleet's waves."""
    return [wave.name for wave in rules.waves or ()] or sorted({_numbered(device) for device in devices})


def check_wave_names(devices: Sequence[Device], rules: RolloutPolicy, where: str) -> None:
    """Whether what the rules name is there. `devices`: the whole fleet. Raises InventoryError.

    A wave that a typo empties would make the next one the first, without canaries; an approval that is asked for no
    wave would never be asked for.
    """
    there = {
        "group": {group for device in devices for group in device.groups},
        "device_type": {d.type for d in devices},
    }
    for wave in rules.waves or ():
        for field, known in there.items():
            named = getattr(wave, field)
            if named is not None and named not in known:
                raise InventoryError(
                    f"{where}.waves: {wave.name}: {field}",
                    f"{named}, of which there is no device",
                    f"one of: {', '.join(sorted(known))}",
                    "mend the name, or take the wave out",
                )
    known_waves = wave_names(devices, rules)
    if unknown := [name for name in rules.approve if name not in known_waves]:
        raise InventoryError(
            f"{where}.approve",
            f"{', '.join(unknown)}, which is no wave",
            f"one of: {', '.join(known_waves)}",
            "mend the name",
        )


def check_approvals(approve: Collection[str], devices: Sequence[Device], rules: RolloutPolicy, path: Path) -> None:
    """Whether every name that is approved is one of a wave. Raises InventoryError.

    Args:
        approve: the names.
        devices: the whole fleet.
        rules: of its rollouts.
        path: of its inventory.
    """
    waves = wave_names(devices, rules)
    if unknown := sorted(set(approve) - set(waves)):
        raise InventoryError(
            "--approve",
            f"{', '.join(unknown)}, which is no wave of {path}",
            f"one of: {', '.join(waves)}",
            "mend the name",
        )


def _numbered(device: Device) -> str:
    """The name of its wave where the rules name none."""
    return f"wave-{device.wave}"


def _planned(name: str, devices: Sequence[Device], rules: RolloutPolicy) -> PlannedWave:
    return PlannedWave(name, tuple(device.name for device in devices), name in rules.approve)


def _choose(wave: WaveRule, left: Sequence[Device], fleet_size: int) -> list[Device]:
    if wave.group is not None:
        return [device for device in left if wave.group in device.groups]
    if wave.device_type is not None:
        return [device for device in left if device.type == wave.device_type]
    if wave.per_type is not None:
        return [
            device
            for kind in dict.fromkeys(device.type for device in left)
            for device in [each for each in left if each.type == kind][: wave.per_type]
        ]
    if wave.count is not None:
        return list(left[: wave.count])
    if wave.percent is not None:
        return list(left[: max(1, fleet_size * wave.percent // 100)])
    return list(left)
