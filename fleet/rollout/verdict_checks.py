"""The checks that decide the verdict on a wave. All functions are pure.

All thresholds come from the rollout policy (`rollout.judge` of the inventory, fleet/inventory/rollout_policy.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fleet.devices.messages import Report, ServingReport
from fleet.inventory.rollout_policy import VerdictThresholds

CheckStatus = Literal["pass", "fail", "inconclusive", "not judged"]
SwitchOutcome = Literal["ok", "failed", "unreachable"]


@dataclass(frozen=True)
class DeviceObservation:
    """The outcome of a device's switch, and the device's reports from before the rollout and from the end of the bake.

    The device is in the wave that is judged, or in its control group.

    Attributes:
        device: The device's name.
        outcome: The outcome of the device's switch to its release; always `ok` in the control group.
        reason: An explanation of the outcome.
        before: The device's report before the rollout; None if there is none.
        after: The device's report at the end of the bake; None if it did not respond.
    """

    device: str
    outcome: SwitchOutcome
    reason: str = ""
    before: Report | None = None
    after: Report | None = None


@dataclass(frozen=True)
class Check:
    """The result of one check of a wave. `devices` names the devices that failed or exceeded the checked limit."""

    name: str
    status: CheckStatus
    reason: str
    devices: tuple[str, ...] = ()


def check_budget(name: str, described: Sequence[str], devices: Sequence[str], budget: int) -> Check:
    """Check that the number of failed or unreachable devices is within the budget.

    Args:
        name: The name of the budget: `failed` or `unreachable`.
        described: The names of the failed or unreachable devices as the check's reason lists them, some with an
            explanation why the device failed.
        devices: The names of the devices that failed or were unreachable.
        budget: The number of devices that may fail or be unreachable.
    """
    reason = f"{len(described)} device(s), {budget} allowed"
    reason += f": {', '.join(described[:5])}" if described else ""
    return Check(name, "fail" if len(described) > budget else "pass", reason, tuple(devices))


def check_evidence(thresholds: VerdictThresholds, wave: Sequence[DeviceObservation]) -> Check:
    """Check that the wave made enough inferences to be judged at all."""
    served = sum(each.after.inferences for each in wave if isinstance(each.after, ServingReport))
    status: CheckStatus = "pass" if served >= thresholds.min_inferences else "inconclusive"
    reason = f"{served} inferences since the switch, at least {thresholds.min_inferences} needed"
    return Check("evidence", status, reason)


def check_errors(
    thresholds: VerdictThresholds, wave: Sequence[DeviceObservation], control_group: Sequence[DeviceObservation]
) -> Check:
    """Check that the fraction of failed inferences does not exceed its limit and has not increased significantly.

    A one-sided Fisher's exact test compares the fraction with the fraction in two other data sets taken together: the
    control group, and the same devices before the rollout.

    Args:
        thresholds: The thresholds of the rollout policy.
        wave: The observations of the wave's healthy devices.
        control_group: The observations of devices that were not updated.
    """
    errors, total = error_counts(wave)
    if not total:
        return Check("errors", "not judged", "no inferences")
    share = errors / total
    control_errors, control_total = error_counts(control_group, since_before=True)
    past_errors, past_total = error_counts(wave, before=True)
    other_errors, other_total = control_errors + past_errors, control_total + past_total
    reason = f"{errors} of {total} failed ({share:.2%})"
    if share > thresholds.error_share:
        return Check("errors", "fail", f"{reason}, at most {thresholds.error_share:.2%} allowed")
    if other_total and _is_larger((errors, total), (other_errors, other_total), thresholds.confidence):
        return Check(
            "errors", "fail", f"{reason}, in the control group and before the rollout {other_errors} of {other_total}"
        )
    return Check("errors", "pass", reason)


def check_latency(
    thresholds: VerdictThresholds, wave: Sequence[DeviceObservation], control_group: Sequence[DeviceObservation]
) -> Check:
    """Check that the p95 latency of the wave is not too much higher than before the rollout.

    Each device has a ratio: its p95 latency in its latest report, divided by its p95 latency before the rollout. If the
    median ratio of the control group is above 1, the median ratio of the wave is divided by it.

    Args:
        thresholds: The thresholds of the rollout policy.
        wave: The observations of the wave's healthy devices.
        control_group: The observations of devices that were not updated.
    """
    ratios = _latency_ratios(wave, thresholds)
    if not ratios:
        return Check("latency", "not judged", "no latency from before the rollout to compare with")
    control = _latency_ratios(control_group, thresholds)
    drift = max(1.0, statistics.median(control.values())) if control else 1.0
    factor = statistics.median(ratios.values()) / drift
    slow = tuple(name for name, ratio in ratios.items() if ratio / drift > thresholds.latency_factor)
    status: CheckStatus = "fail" if factor > thresholds.latency_factor else "pass"
    reason = f"p95 is {factor:.2f} times the value before the rollout, at most {thresholds.latency_factor:g} allowed"
    return Check("latency", status, reason, slow)


def _latency_ratios(devices: Sequence[DeviceObservation], thresholds: VerdictThresholds) -> dict[str, float]:
    """Return each device's p95 latency in its latest report, divided by its p95 latency before the rollout."""
    floor = thresholds.latency_floor_ms / 1000
    ratios = {}
    for each in devices:
        before, after = _p95(each.before), _p95(each.after)
        if before and after:
            ratios[each.device] = max(after, floor) / max(before, floor)
    return ratios


def _p95(report: Report | None) -> float | None:
    return report.latency_s.p95 if isinstance(report, ServingReport) else None


def check_feedback(
    thresholds: VerdictThresholds, wave: Sequence[DeviceObservation], control_group: Sequence[DeviceObservation]
) -> Check:
    """Check that the accuracy on predictions with feedback has not dropped too much (one-sided Fisher's exact test).

    The wave is compared with the control group and with the same devices before the rollout.

    Args:
        thresholds: The thresholds of the rollout policy.
        wave: The observations of the wave's healthy devices.
        control_group: The observations of devices that were not updated.
    """
    mistakes, total = _feedback_counts(wave)
    if total < thresholds.feedback_min:
        return Check("feedback", "not judged", f"{total} labels, at least {thresholds.feedback_min} needed")
    control_mistakes, control_total = _feedback_counts(control_group)
    past_mistakes, past_total = _feedback_counts(wave, before=True)
    other_mistakes, other_total = control_mistakes + past_mistakes, control_total + past_total
    accuracy = 1 - mistakes / total
    if other_total < thresholds.feedback_min:
        return Check("feedback", "not judged", f"accuracy {accuracy:.2%}, only {other_total} labels to compare with")
    other = 1 - other_mistakes / other_total
    reason = (
        f"accuracy {accuracy:.2%} over {total} labels; "
        f"in the control group and before the rollout {other:.2%} over {other_total}"
    )
    worse = other - accuracy > thresholds.feedback_drop and _is_larger(
        (mistakes, total), (other_mistakes, other_total), thresholds.confidence
    )
    return Check("feedback", "fail" if worse else "pass", reason)


def check_predictions(thresholds: VerdictThresholds, wave: Sequence[DeviceObservation]) -> Check:
    """Check that the distribution of predicted classes is similar to the distribution before the rollout.

    Both distributions come from the same devices, and the population stability index (PSI) measures their difference.
    The check fails only if the PSI exceeds both the limit of the policy and the 99th percentile of the PSI values that
    chance alone would produce.
    """
    now, earlier = _class_counts(wave, before=False), _class_counts(wave, before=True)
    names = sorted(set(now) | set(earlier))
    n, m = sum(now.values()), sum(earlier.values())
    if min(n, m) < thresholds.prediction_min or len(names) < 2:
        reason = f"{n} predictions since the switch and {m} before it, {thresholds.prediction_min} of each needed"
        return Check("predictions", "not judged", reason)
    import numpy as np
    from edge_agent.monitoring.drift import null_quantile, psi

    shares = np.array([earlier.get(name, 0) for name in names]) / m
    shift = psi(shares, np.array([now.get(name, 0) for name in names]))
    allowed = max(thresholds.prediction_psi, null_quantile(len(names), n, m))
    status: CheckStatus = "fail" if shift > allowed else "pass"
    return Check("predictions", status, f"PSI {shift:.3f} since before the rollout, at most {allowed:.3f} allowed")


def _is_larger(first: tuple[int, int], second: tuple[int, int], confidence: float) -> bool:
    """Return whether the first fraction is significantly larger than the second (one-sided Fisher's exact test).

    Each fraction is a pair: the number of events, and the total number of trials.
    """
    from scipy.stats import fisher_exact

    contingency = [[events, total - events] for events, total in (first, second)]
    return bool(fisher_exact(contingency, alternative="greater").pvalue < 1 - confidence)


def error_counts(
    devices: Sequence[DeviceObservation], *, before: bool = False, since_before: bool = False
) -> tuple[int, int]:
    """Return the number of failed inferences and the number of all inferences of these devices together.

    Args:
        devices: The observations of the devices.
        before: Whether to use the reports from before the rollout instead of the latest reports.
        since_before: Whether to subtract the inferences that the reports from before the rollout already include.
    """
    errors = total = 0
    for each in devices:
        report = each.before if before else each.after
        if not isinstance(report, ServingReport):
            continue
        failed, tries = report.errors, report.inferences + report.errors
        baseline = each.before
        if since_before and isinstance(baseline, ServingReport) and baseline.release == report.release:
            failed -= baseline.errors
            tries -= baseline.inferences + baseline.errors
        failed = max(failed, 0)  # counters that were reset during the bake count as zero
        errors, total = errors + failed, total + max(tries, failed)
    return errors, total


def _feedback_counts(devices: Sequence[DeviceObservation], *, before: bool = False) -> tuple[int, int]:
    """Return the number of feedback labels that contradict the prediction, and the number of all feedback labels."""
    reports = [each.before if before else each.after for each in devices]
    feedback = [report.feedback for report in reports if isinstance(report, ServingReport)]
    return sum(each.wrong for each in feedback), sum(each.n for each in feedback)


def _class_counts(devices: Sequence[DeviceObservation], *, before: bool) -> dict[str, int]:
    """Return the number of predictions of each class."""
    total: dict[str, int] = {}
    for each in devices:
        report = each.before if before else each.after
        if isinstance(report, ServingReport):
            for name, count in report.predictions.items():
                total[name] = total.get(name, 0) + count
    return total
