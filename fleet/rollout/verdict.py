"""Compute the verdict on a wave from the devices' reports. The functions use no clock, network or file.

The wave's measurements since the switch to the new release are compared with measurements of the same devices before
the rollout, and with measurements of a control group over the same time (verdict_checks.py). Statistical tests compare
counts, so that random variation in a small group neither stops a rollout nor hides a fault. A wave with too few
inferences is inconclusive, and an inconclusive wave never passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fleet.devices.messages import Report, ServingReport
from fleet.inventory.rollout_policy import VerdictThresholds
from fleet.records.state import RecordedVerdict
from fleet.rollout import verdict_checks
from fleet.rollout.verdict_checks import Check, DeviceObservation, error_counts

WaveResult = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a wave.

    Attributes:
        status: Whether the wave passed, failed or is inconclusive.
        checks: The results of all checks.
        failed: Names of the devices that count against the budget for failed devices.
        unreachable: Names of the devices that count against the budget for unreachable devices.
        reasons: For each failed device, the reason why it failed.
    """

    status: WaveResult
    checks: tuple[Check, ...]
    failed: tuple[str, ...]
    unreachable: tuple[str, ...]
    reasons: Mapping[str, str]

    def reason(self) -> str:
        """Return the reason for the verdict in one line."""
        decisive = [f"{check.name}: {check.reason}" for check in self.checks if check.status == self.status != "pass"]
        return "; ".join(decisive) or "every check passed"

    def record(self) -> RecordedVerdict:
        """Return the verdict in the form that state.json records."""
        return RecordedVerdict.model_validate(
            {
                "status": self.status,
                "checks": [{**vars(check), "devices": list(check.devices)} for check in self.checks],
                "failed": list(self.failed),
                "unreachable": list(self.unreachable),
                "why": dict(self.reasons),
                "reason": self.reason(),
            }
        )


def judge(
    thresholds: VerdictThresholds,
    release: str | Mapping[str, str],
    wave: Sequence[DeviceObservation],
    control_group: Sequence[DeviceObservation],
    *,
    failed_budget: int,
    unreachable_budget: int,
    early_failure: str = "",
) -> Verdict:
    """Return the verdict on a wave.

    A device fails if its switch failed, or if it does not respond, runs a different release, is still on trial, or has
    restarted too often or used too much additional memory.

    Args:
        thresholds: The thresholds of the rollout policy.
        release: The release that all devices of the wave have to run, or a mapping of device names to releases.
        wave: The observations of the wave's devices.
        control_group: The observations of devices that were not updated.
        failed_budget: The number of devices that may fail; 0 for canaries.
        unreachable_budget: The number of devices that may be unreachable; 0 for canaries.
        early_failure: Why the wave failed before its bake ended; empty if the bake was complete. An early failure
            makes the verdict `fail`.
    """
    failed = {each.device: each.reason or "the deployment failed" for each in wave if each.outcome == "failed"}
    unreachable = [each.device for each in wave if each.outcome == "unreachable"]
    healthy: list[DeviceObservation] = []
    for each in wave:
        if each.outcome != "ok":
            continue
        expected = release if isinstance(release, str) else release[each.device]
        if failure := _device_failure(each, expected, thresholds):
            failed[each.device] = failure
        else:
            healthy.append(each)
    explained = [f"{name} ({reason})" for name, reason in failed.items()]
    checks = [Check("bake", "fail", early_failure)] if early_failure else []
    checks += [
        verdict_checks.check_budget("failed", explained, list(failed), failed_budget),
        verdict_checks.check_budget("unreachable", unreachable, unreachable, unreachable_budget),
        verdict_checks.check_evidence(thresholds, healthy),
        verdict_checks.check_errors(thresholds, healthy, control_group),
        verdict_checks.check_latency(thresholds, healthy, control_group),
        verdict_checks.check_feedback(thresholds, healthy, control_group),
        verdict_checks.check_predictions(thresholds, healthy),
    ]
    statuses = {check.status for check in checks}
    status: WaveResult = "fail" if "fail" in statuses else "inconclusive" if "inconclusive" in statuses else "pass"
    return Verdict(status, tuple(checks), tuple(failed), tuple(unreachable), failed)


def _device_failure(observed: DeviceObservation, release: str, thresholds: VerdictThresholds) -> str:
    """Return why a device has failed at the end of the bake, or an empty string if it has not failed."""
    if observed.after is None:
        return "did not respond at the end of the bake"
    if fault := device_fault(observed.after, release, thresholds):
        return fault
    on_trial = isinstance(observed.after, ServingReport) and observed.after.trial
    return "still on trial at the end of the bake" if on_trial else ""


def device_fault(report: Report, release: str, thresholds: VerdictThresholds) -> str:
    """Return a fault that makes a device fail even before the bake ends, or an empty string if there is none.

    Args:
        report: The device's report from after its switch to the release.
        release: The release that the device has to run.
        thresholds: The thresholds of the rollout policy.
    """
    if not isinstance(report, ServingReport) or report.release != release:
        return f"runs {report.release or 'no release'}: it rolled back automatically"
    if report.restarts > thresholds.restarts:
        return f"{report.restarts} restart(s) since the switch, at most {thresholds.restarts} allowed"
    growth_mb = (report.memory_bytes - report.memory_at_start_bytes) / 1e6
    if growth_mb > thresholds.memory_growth_mb:
        return f"its memory grew by {growth_mb:.0f} MB, at most {thresholds.memory_growth_mb:g} allowed"
    return ""


def fails_early(thresholds: VerdictThresholds, wave: Sequence[DeviceObservation]) -> str:
    """Check before the end of a bake whether significantly too many inferences of the wave have failed.

    Return the reason why the wave fails, or an empty string if it does not fail. At each check during the bake, a
    one-sided binomial test compares the fraction of failed inferences with the allowed fraction. Because the test is
    repeated often, each test may use only a hundredth of the error probability that the policy allows.
    """
    errors, total = error_counts(wave)
    if not total or errors / total <= thresholds.error_share:
        return ""
    from scipy.stats import binomtest  # imported here because the import is slow and most waves need no test

    chance = binomtest(errors, total, thresholds.error_share, alternative="greater").pvalue
    reason = f"{errors} of {total} inferences failed, at most {thresholds.error_share:.2%} allowed"
    return reason if chance < (1 - thresholds.confidence) / 100 else ""
