"""Watch a wave while it bakes: decide when to check it next, and whether it has failed before the end of the bake.

The pause between two checks grows with the time since the bake began. A release that fails immediately is detected
immediately. A release that fails after some hours is detected within a tenth of that time. A bake of one day therefore
needs about seventy checks, not thousands. Because querying many devices takes time, the pauses are also long enough
that at most a tenth of the bake is spent on queries.
"""

from __future__ import annotations

from collections.abc import Mapping

from fleet.devices.messages import AgentStatus
from fleet.records.state import EarlyFailure
from fleet.rollout import verdict
from fleet.rollout.controller import DeployOutcome, RolloutController
from fleet.rollout.step_results import BakeLook

SHARE = 0.1


def look(
    controller: RolloutController,
    outcomes: Mapping[str, str],
    statuses: Mapping[str, AgentStatus | None],
    previous: BakeLook | None,
    now_s: float,
) -> BakeLook:
    """Check a wave during its bake, and decide how long to wait until the next check or the verdict.

    If the wave has already failed, the wait is zero, so that the wave is judged immediately.

    Args:
        controller: The rollout's controller.
        outcomes: The outcome of each device's switch to the new release, by device name.
        statuses: The statuses of the wave's devices, by device name; empty at the first check.
        previous: The result of the previous check; None at the first check.
        now_s: The current monotonic time, in seconds.
    """
    wave, policy = controller.wave_of(list(outcomes)), controller.policy
    switched = {name: status for name, status in statuses.items() if outcomes[name] == "ok"}
    silent = [name for name, status in switched.items() if status is None or status.report is None]
    began, query_s = (previous.began_s, now_s - previous.until_s) if previous else (now_s, 0.0)
    counts = list(outcomes.values())
    remaining = {name: number - counts.count(name) for name, number in controller.wave_budget(wave).items()}
    over_budget = min(remaining.values()) < 0
    # A device that misses a single check has not failed, because the network may be the cause.
    still_silent = [name for name in silent if previous and name in previous.silent]
    failure = None if over_budget else _early_failure(controller, switched, still_silent, remaining["failed"])
    elapsed = now_s - began
    wait = 0.0 if over_budget or failure else pause(elapsed, query_s, policy.bake_s, policy.bake_poll_s)
    if failure:
        reason = f"cut short after {elapsed:.0f} s: {failure.reason}"
        controller.log("watch", "lost", detail=f"wave {wave.name}: {reason}")
        lost = EarlyFailure(reason=reason, devices=failure.devices)
        controller.save(controller.state.with_wave(wave.name, lost=lost))
    return BakeLook(
        wave=wave.name,
        again=not over_budget and not failure and now_s + wait < began + policy.bake_s,
        wait_s=wait,
        began_s=began,
        until_s=now_s + wait,
        silent=silent,
    )


def _early_failure(
    controller: RolloutController,
    statuses: Mapping[str, AgentStatus | None],
    still_silent: list[str],
    failed_budget: int,
) -> EarlyFailure | None:
    """Return why a wave has already failed during its bake, or None if the wave can still pass."""
    thresholds = controller.policy.judge
    failed = dict.fromkeys(still_silent, "did not respond to two checks in a row during the bake")
    observed = [controller.observe(name, DeployOutcome("ok", "", status), {}) for name, status in statuses.items()]
    for each in observed:
        if each.after:
            release = controller.state.devices[each.device].release
            if reason := each.reason or verdict.device_fault(each.after, release, thresholds):
                failed[each.device] = reason
    if len(failed) > failed_budget:
        return EarlyFailure(reason=f"{len(failed)} device(s) failed", devices=failed)
    errors = verdict.fails_early(thresholds, observed)
    return EarlyFailure(reason=errors, devices=failed) if errors else None


def pause(elapsed_s: float, query_s: float, bake_s: float, poll_s: float) -> float:
    """Return how many seconds to wait before a wave is checked again, at most until the end of its bake.

    Args:
        elapsed_s: The time since the bake began, in seconds.
        query_s: How long the last query of the devices took, in seconds.
        bake_s: The length of the bake, in seconds.
        poll_s: The minimum pause between two checks, in seconds.
    """
    remaining = max(bake_s - elapsed_s, 0.0)
    pause_s = max(poll_s, elapsed_s * SHARE, query_s * (1 - SHARE) / SHARE)
    return remaining if remaining - pause_s < poll_s * SHARE else pause_s  # no check shortly before the last one


def max_looks(bake_s: float, poll_s: float) -> int:
    """Return the maximum number of checks of a wave during its bake, including the check at the end of the bake."""
    elapsed, number = 0.0, 1
    while (step := pause(elapsed, 0.0, bake_s, poll_s)) < bake_s - elapsed:
        elapsed, number = elapsed + step, number + 1
    return number
