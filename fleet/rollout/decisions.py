"""Decide what follows from the state of a rollout: may a wave begin, what a verdict changes, which devices roll back.

Pure: functions take a state and return a state or a decision. They read and write nothing and contact no device;
controller.py records what they decide.
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
MAX_REASON = 500  # characters of the reason that an agent is given for a rollback


@dataclass(frozen=True)
class RollbackOrder:
    """The release that a device has to roll back to, and the reason that its agent records."""

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
    """Return why a wave may not begin, or an empty string.

    Args:
        state: of the rollout.
        policy: of the rollout.
        wave: one of the rollout's waves.
        approved_by: the user who approves the wave now; None: no user does.
        began_by: the user who began the rollout; None: not recorded.
        now: the current time, with a time zone.
    """
    for each in state.waves:
        if each.name == wave.name:
            break
        if each.status != "pass":
            return f"wave {each.name} before it did not pass ({each.status})"
    if state.status != "running":
        return state.reason
    if wave.approve and not wave.approved_by and (reason := _approval_missing(policy, wave, approved_by, began_by)):
        return reason
    if policy.window and not state.outside_window and not policy.window.is_open(now):
        return f"wave {wave.name} waits: the maintenance window is closed"
    return ""


def _approval_missing(policy: RolloutPolicy, wave: WaveState, approved_by: str | None, began_by: str | None) -> str:
    """Return why a wave has no valid approval, or an empty string."""
    if not approved_by:
        reason = f" ({wave.why})" if wave.why else ""
        return f"wave {wave.name} waits for approval{reason}: --approve {wave.name}, -e rollout_approve={wave.name}"
    if policy.approvers and approved_by not in policy.approvers:
        allowed = ", ".join(policy.approvers)
        return f"wave {wave.name} waits: {approved_by} is not one of rollout.approvers: {allowed}"
    if policy.four_eyes and approved_by == began_by:
        return f"wave {wave.name} waits: {approved_by} began this rollout, rollout.four_eyes requires another approver"
    return ""


def control_group(state: RolloutState, policy: RolloutPolicy, wave: WaveState) -> list[str]:
    """Return devices that do not change during a wave, spread over the fleet, to compare the wave with.

    Args:
        state: of the rollout.
        policy: of the rollout; its `control` is the size of the group.
        wave: the wave that is compared.
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
    """Return what remains of the fleet's budget after these devices, by kind; below zero where they exceed it.

    Args:
        devices: that are charged to the budget.
        policy: of the rollout.
        size: number of devices in the fleet.
    """
    spent = Counter(device.spent for device in devices)
    return {name: device_count(getattr(policy.budget, name), size) - spent[name] for name in ("failed", "unreachable")}


def wave_budget(state: RolloutState, policy: RolloutPolicy, size: int, wave: WaveState) -> dict[str, int]:
    """Return the budget of a wave, by kind: what all other devices have left. A canary wave has none.

    Args:
        state: of the rollout.
        policy: of the rollout.
        size: number of devices in the fleet.
        wave: one of the rollout's waves.
    """
    if wave.canary:
        return {"failed": 0, "unreachable": 0}
    others = [device for name, device in state.devices.items() if name not in wave.devices]
    return {name: max(number, 0) for name, number in remaining_budget(others, policy, size).items()}


# --- after a wave


def with_verdict(
    state: RolloutState, wave: WaveState, observed: Sequence[DeviceObservation], verdict: Verdict, now: str
) -> RolloutState:
    """Return the state after a wave was judged.

    Args:
        state: of the rollout.
        wave: the one that was judged.
        observed: its devices.
        verdict: the verdict on it.
        now: the current time, in the format of `audit_log.now`.
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
    """Return the state after devices failed whose wave had passed.

    The rollout fails if one of them is a canary, or if the fleet's budget is exceeded.

    Args:
        state: of the rollout.
        failures: the charge to the budget and the reason, by device.
        policy: of the rollout.
        size: number of devices in the fleet.
        now: the current time, in the format of `audit_log.now`.
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
    """Return the devices that have to roll back, and those that would have to but ran no release before.

    Args:
        state: of the rollout.
        rollout: its id.

    Returns:
        The orders by device, and the reasons why the other devices keep the new release, by device.
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
            kept[name] = f"{reason}; it stays on {device.release}: {NO_PREVIOUS_RELEASE}"
    return orders, kept


def ended(state: RolloutState, now: str) -> RolloutState:
    """Return the state after all rollbacks were attempted. `now` is in the format of `audit_log.now`."""
    if state.has_failed:
        return replace(state, status="failed", ended=now)
    if state.status != "running":
        return state
    if all(wave.status == "pass" for wave in state.waves):
        return replace(state, status="passed", ended=now)
    return replace(state, status="paused", reason=state.reason or "not every wave was judged", ended=None)


def rollback_decided(state: RolloutState, device: DeviceState) -> str | None:
    """Return when the rollback of a device was decided: when the first wave failed, or else its own was judged."""
    failed = [wave.judged for wave in state.waves if wave.status == "fail" and wave.judged]
    return min(failed) if failed else state.wave(device.wave).judged
