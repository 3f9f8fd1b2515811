"""What follows from the state of a rollout: whether a wave may begin, what a verdict changes, who has to roll back.

Nothing is read, written or asked here: a state goes in, a state or an answer comes out. controller.py records them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from fleet.inventory.rollout_policy import RolloutPolicy, device_count
from fleet.records.state import DeviceState, RolloutState, Spent, WaveState
from fleet.rollout.verdict import Seen, Verdict

Json = dict[str, Any]
NOWHERE = "it ran no release before"


# --- before a wave


def refusal(
    state: RolloutState,
    rules: RolloutPolicy,
    wave: WaveState,
    approved_by: str | None,
    began_by: str | None,
    now: datetime,
) -> str:
    """Why a wave may not begin, or nothing.

    Args:
        state: of the rollout.
        rules: of the rollout.
        wave: one of it.
        approved_by: who approves it now; None: nobody does.
        began_by: who began the rollout, as far as that is recorded.
        now: with a time zone.
    """
    for each in state.waves:
        if each.name == wave.name:
            break
        if each.status != "pass":
            return f"wave {each.name} before it did not pass ({each.status})"
    if state.status != "running":
        return state.reason
    if wave.approve and not wave.approved_by and (reason := _unapproved(rules, wave, approved_by, began_by)):
        return reason
    if rules.window and not state.outside_window and not rules.window.is_open(now):
        return f"wave {wave.name} waits: the maintenance window is closed"
    return ""


def _unapproved(rules: RolloutPolicy, wave: WaveState, approved_by: str | None, began_by: str | None) -> str:
    """Why nobody has approved the wave who may, or nothing."""
    if not approved_by:
        why = f" ({wave.why})" if wave.why else ""
        return f"wave {wave.name} waits for approval{why}: --approve {wave.name}, -e rollout_approve={wave.name}"
    if rules.approvers and approved_by not in rules.approvers:
        allowed = ", ".join(rules.approvers)
        return f"wave {wave.name} waits: {approved_by} is not one of rollout.approvers: {allowed}"
    if rules.four_eyes and approved_by == began_by:
        return f"wave {wave.name} waits: {approved_by} began this rollout, rollout.four_eyes asks another"
    return ""


def control_group(state: RolloutState, rules: RolloutPolicy, wave: WaveState) -> list[str]:
    """Some devices that do not change meanwhile, spread over the fleet, to compare the wave with."""
    there = [
        name
        for name, device in state.devices.items()
        if not device.touched and device.outcome in ("planned", "ok") and name not in wave.devices
    ]
    number = min(rules.control, len(there))
    return [there[place * len(there) // number] for place in range(number)]


# --- the budget


def budget_left(devices: Iterable[DeviceState], rules: RolloutPolicy, size: int) -> dict[str, int]:
    """What these left of the fleet's budget; below zero where they took more. `size`: devices of the fleet."""
    spent = Counter(device.spent for device in devices)
    return {name: device_count(getattr(rules.budget, name), size) - spent[name] for name in ("failed", "unreachable")}


def budget_of_wave(state: RolloutState, rules: RolloutPolicy, size: int, wave: WaveState) -> dict[str, int]:
    """What earlier waves, and devices that could not take part, left for a wave. A canary wave has no budget."""
    if wave.canary:
        return {"failed": 0, "unreachable": 0}
    others = [device for name, device in state.devices.items() if name not in wave.devices]
    return {name: max(number, 0) for name, number in budget_left(others, rules, size).items()}


# --- after a wave


def with_verdict(state: RolloutState, wave: WaveState, seen: Sequence[Seen], judged: Verdict, now: str) -> RolloutState:
    """The state after a wave was judged.

    Args:
        state: of the rollout.
        wave: the one that was judged.
        seen: its devices.
        judged: the verdict on it.
        now: as audit.now writes it.
    """
    state = state.with_wave(wave.name, status=judged.status, judged=now, verdict=judged.as_json())
    for each in seen:
        name = each.device
        spent = "failed" if name in judged.failed else "unreachable" if name in judged.unreachable else ""
        reason = judged.why.get(name) or each.reason
        state = state.with_device(name, outcome=spent or "ok", reason=reason, spent=spent)
    reason = f"wave {wave.name}: {judged.reason()}"
    if judged.status == "inconclusive":
        return replace(state, status="paused", reason=reason)
    return replace(state, reason=reason) if judged.status == "fail" else state


def with_late_failures(
    state: RolloutState, failures: Mapping[str, tuple[Spent, str]], rules: RolloutPolicy, size: int, now: str
) -> RolloutState:
    """The state after devices failed that were well when their wave was judged.

    The rollout fails with a canary, and where more of the budget is spent than there is.

    Args:
        state: of the rollout.
        failures: name -> what it takes of the budget, and why.
        rules: of the rollout.
        size: devices of the fleet.
        now: as audit.now writes it.
    """
    for name, (spent, reason) in failures.items():
        state = state.with_device(name, outcome=spent, reason=reason, spent=spent)
    if not failures or state.has_failed:
        return state
    canaries = [name for name in failures if state.wave(state.devices[name].wave).canary]
    if not canaries and min(budget_left(state.devices.values(), rules, size).values()) >= 0:
        return state
    blamed = canaries or list(failures)
    wave = state.devices[blamed[0]].wave
    reasons = "; ".join(f"{name}: {state.devices[name].reason}" for name in blamed)
    failed = state.with_wave(wave, status="fail", judged=now)
    return replace(failed, status="running", reason=f"after wave {wave}, {reasons}")


def rollbacks(state: RolloutState, rollout: str) -> tuple[dict[str, Json], dict[str, str]]:
    """Who has to roll back: name -> {"to", "reason"}; and who would have to, but has nothing to go to: name -> why.

    `rollout`: its id.
    """
    back: dict[str, Json] = {}
    kept: dict[str, str] = {}
    for name, device in state.devices.items():
        if not device.touched or not (state.has_failed or device.outcome == "failed"):
            continue
        reason = device.reason or state.reason
        if device.was is not None:
            back[name] = {"to": device.was, "reason": f"rollout {rollout}: {reason}"[:500]}
        elif NOWHERE not in device.reason:
            kept[name] = f"{reason}; it stays on {device.release}: {NOWHERE}"
    return back, kept


def ended(state: RolloutState, now: str) -> RolloutState:
    """The state after everything that had to roll back was asked to. `now`: as audit.now writes it."""
    if state.has_failed:
        return replace(state, status="failed", ended=now)
    if state.status != "running":
        return state
    if all(wave.status == "pass" for wave in state.waves):
        return replace(state, status="passed", ended=now)
    return replace(state, status="paused", reason=state.reason or "not every wave was judged", ended=None)


def verdict_time(state: RolloutState, device: DeviceState) -> str | None:
    """When it was decided that a device rolls back: when the first wave failed, or else its own was judged."""
    failed = [wave.judged for wave in state.waves if wave.status == "fail" and wave.judged]
    return min(failed) if failed else state.wave(device.wave).judged
