"""Decide from the state of a rollout whether a wave may begin, which devices roll back, and how the rollout ends.

The functions are pure: they take a state and return a state or a decision. They do not read or write files and do not
contact devices. controller.py records their decisions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from fleet.inventory.rollout_policy import RolloutPolicy, device_count
from fleet.records.state import BudgetCharge, DeviceState, RolloutState, WaveState
from fleet.rollout.verdict import Verdict
from fleet.rollout.verdict_checks import DeviceObservation

NO_PREVIOUS_RELEASE = "it ran no release before"
MAX_REASON = 500  # maximum length of the reason for a rollback that is sent to an agent, in characters


@dataclass(frozen=True)
class RollbackOrder:
    """The release to which a device has to roll back, and the reason for the rollback, which its agent records."""

    to: str
    reason: str


# --- before a wave


def refusal(
    state: RolloutState,
    policy: RolloutPolicy,
    wave: WaveState,
    *,
    approved_by: str | None,
    began_by: str | None,
    now: datetime,
) -> str:
    """Return why a wave must not begin, or an empty string if it may begin.

    Args:
        state: The rollout's state.
        policy: The fleet's rollout policy.
        wave: The wave that is to begin.
        approved_by: The user who approves the wave in this run; None if no user approves it.
        began_by: The user who began the rollout; None if that was not recorded.
        now: The current time, with a time zone.
    """
    for each in state.waves:
        if each.name == wave.name:
            break
        if each.status != "pass":
            return f"the earlier wave {each.name} did not pass ({each.status})"
    if state.status != "running":
        return state.reason
    if wave.approve and not wave.approved_by and (reason := _approval_missing(policy, wave, approved_by, began_by)):
        return reason
    if policy.window and not state.outside_window and not policy.window.is_open(now):
        return f"wave {wave.name} waits: the maintenance window is closed"
    return ""


def _approval_missing(policy: RolloutPolicy, wave: WaveState, approved_by: str | None, began_by: str | None) -> str:
    """Return why a wave lacks a valid approval, or an empty string if it has a valid approval."""
    if not approved_by:
        reason = f" ({wave.why})" if wave.why else ""
        return f"wave {wave.name} waits for approval{reason}: --approve {wave.name}, -e rollout_approve={wave.name}"
    if policy.approvers and approved_by not in policy.approvers:
        allowed = ", ".join(policy.approvers)
        return f"wave {wave.name} waits: {approved_by} is not one of rollout.approvers: {allowed}"
    if policy.four_eyes and approved_by == began_by:
        return f"wave {wave.name} waits: {approved_by} began this rollout, but rollout.four_eyes requires another user"
    return ""


def control_group(state: RolloutState, policy: RolloutPolicy, wave: WaveState) -> list[str]:
    """Choose the devices of a wave's control group, evenly spread over the devices that were not updated yet.

    Args:
        state: The rollout's state.
        policy: The fleet's rollout policy; its field `control` is the maximum number of devices in the control group.
        wave: The wave that will be compared with the control group.
    """
    candidates = [
        name
        for name, device in state.devices.items()
        if not device.touched and device.outcome in ("planned", "ok") and name not in wave.devices
    ]
    number = min(policy.control, len(candidates))
    return [candidates[place * len(candidates) // number] for place in range(number)]


# --- the budget


def remaining_budget(devices: Iterable[DeviceState], policy: RolloutPolicy, size: int) -> dict[str, int]:
    """Return how many more devices may fail (`failed`) and how many more may be unreachable (`unreachable`).

    A number below zero means that the fleet's budget is exceeded.

    Args:
        devices: The states of the devices that may count against the budget.
        policy: The fleet's rollout policy.
        size: The number of devices in the fleet.
    """
    spent = Counter(device.spent for device in devices)
    return {name: device_count(getattr(policy.budget, name), size) - spent[name] for name in ("failed", "unreachable")}


def wave_budget(state: RolloutState, policy: RolloutPolicy, size: int, wave: WaveState) -> dict[str, int]:
    """Return how many devices of a wave may fail (`failed`) and how many may be unreachable (`unreachable`).

    These numbers are the part of the fleet's budget that the devices of other waves have not used. For a canary wave,
    both numbers are zero.

    Args:
        state: The rollout's state.
        policy: The fleet's rollout policy.
        size: The number of devices in the fleet.
        wave: The wave for which the numbers are computed.
    """
    if wave.canary:
        return {"failed": 0, "unreachable": 0}
    others = [device for name, device in state.devices.items() if name not in wave.devices]
    return {name: max(number, 0) for name, number in remaining_budget(others, policy, size).items()}


# --- after a wave


def with_verdict(
    state: RolloutState, wave: WaveState, observed: Sequence[DeviceObservation], verdict: Verdict, now: str
) -> RolloutState:
    """Return the rollout's state with the verdict on a wave and the resulting outcomes of the wave's devices.

    Args:
        state: The rollout's state before the verdict.
        wave: The wave that was judged.
        observed: The observations of the wave's devices.
        verdict: The verdict on the wave.
        now: The current time, in the format of `audit_log.now`.
    """
    state = state.with_wave(wave.name, status=verdict.status, judged=now, verdict=verdict.record())
    for each in observed:
        name = each.device
        charge = "failed" if name in verdict.failed else "unreachable" if name in verdict.unreachable else ""
        reason = verdict.reasons.get(name) or each.reason
        state = state.with_device(name, outcome=charge or "ok", reason=reason, spent=charge)
    reason = f"wave {wave.name}: {verdict.reason()}"
    if verdict.status == "inconclusive":
        return replace(state, status="paused", reason=reason)
    return replace(state, reason=reason) if verdict.status == "fail" else state


def with_late_failures(
    state: RolloutState,
    failures: Mapping[str, tuple[BudgetCharge, str]],
    policy: RolloutPolicy,
    size: int,
    now: str,
) -> RolloutState:
    """Return the rollout's state with the failures of devices that failed after their wave had passed.

    The rollout fails if one of these devices is a canary, or if the fleet's budget is exceeded.

    Args:
        state: The rollout's state.
        failures: For each failed device, the budget that it counts against and the reason for its failure.
        policy: The fleet's rollout policy.
        size: The number of devices in the fleet.
        now: The current time, in the format of `audit_log.now`.
    """
    for name, (charge, reason) in failures.items():
        state = state.with_device(name, outcome=charge, reason=reason, spent=charge)
    if not failures or state.has_failed:
        return state
    canaries = [name for name in failures if state.wave(state.devices[name].wave).canary]
    if not canaries and min(remaining_budget(state.devices.values(), policy, size).values()) >= 0:
        return state
    decisive = canaries or list(failures)
    wave = state.devices[decisive[0]].wave
    reasons = "; ".join(f"{name}: {state.devices[name].reason}" for name in decisive)
    failed = state.with_wave(wave, status="fail", judged=now)
    return replace(failed, status="running", reason=f"after wave {wave}, {reasons}")


def rollbacks(state: RolloutState, rollout: str) -> tuple[dict[str, RollbackOrder], dict[str, str]]:
    """Return which devices have to roll back, and which devices cannot because they ran no release before.

    Args:
        state: The rollout's state.
        rollout: The rollout's id.

    Returns:
        For each device that has to roll back, its rollback order. For each failed device that cannot roll back, the
        reason why the device keeps the new release.
    """
    orders: dict[str, RollbackOrder] = {}
    kept: dict[str, str] = {}
    for name, device in state.devices.items():
        if not device.touched or not (state.has_failed or device.outcome == "failed"):
            continue
        reason = device.reason or state.reason
        if device.was is not None:
            orders[name] = RollbackOrder(device.was, f"rollout {rollout}: {reason}"[:MAX_REASON])
        elif NO_PREVIOUS_RELEASE not in device.reason:
            kept[name] = f"{reason}; the device keeps {device.release}: {NO_PREVIOUS_RELEASE}"
    return orders, kept


def ended(state: RolloutState, now: str) -> RolloutState:
    """Return the rollout's state with the status that follows from the verdicts on its waves: failed, passed or paused.

    `now` is the current time, in the format of `audit_log.now`.
    """
    if state.has_failed:
        return replace(state, status="failed", ended=now)
    if state.status != "running":
        return state
    if all(wave.status == "pass" for wave in state.waves):
        return replace(state, status="passed", ended=now)
    return replace(state, status="paused", reason=state.reason or "not every wave was judged", ended=None)


def rollback_decided(state: RolloutState, device: DeviceState) -> str | None:
    """Return the time at which the rollback of a device was decided.

    This is the time at which the first failed wave was judged. If no wave failed, it is the time at which the device's
    own wave was judged."""
    failed = [wave.judged for wave in state.waves if wave.status == "fail" and wave.judged]
    return min(failed) if failed else state.wave(device.wave).judged
