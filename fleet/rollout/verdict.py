"""Whether a wave did well: reports in, a verdict out. Pure: no clock, no network, no file.

A device's numbers since the switch are compared with its own past and with the rest of the fleet over the same
time. What compares two counts is a statistical test, so that chance among few does not stop a rollout, nor hide
among few: too little evidence is inconclusive, and inconclusive never passes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fleet.inventory.rollout_policy import VerdictThresholds

Status = Literal["pass", "fail", "inconclusive", "not judged"]
Report = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What is known of one device of a wave, or of the rest.

    `outcome`: of its switch; a device of the rest is always `ok`. `before`: its report before the wave; `after`: at
    the end of the bake (None: it said nothing).
    """

    device: str
    outcome: Literal["ok", "failed", "unreachable"]
    reason: str = ""
    before: Report | None = None
    after: Report | None = None


@dataclass(frozen=True)
class Check:
    """`devices`: those that it was about where it failed."""

    name: str
    status: Status
    reason: str
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """`failed` and `unreachable` count against the fleet's budget, apart. `why`: of each device that failed."""

    status: Literal["pass", "fail", "inconclusive"]
    checks: tuple[Check, ...]
    failed: tuple[str, ...]
    unreachable: tuple[str, ...]
    why: Mapping[str, str]

    def reason(self) -> str:
        """In one line, why it is what it is."""
        told = [f"{check.name}: {check.reason}" for check in self.checks if check.status == self.status != "pass"]
        return "; ".join(told) or "every check passed"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "reason": self.reason()}


def judge(
    rules: VerdictThresholds,
    release: str | Mapping[str, str],
    wave: Sequence[Seen],
    rest: Sequence[Seen],
    *,
    failed_left: int,
    unreachable_left: int,
    lost: str = "",
) -> Verdict:
    """The verdict on a wave that switched to `release` (or each device to its own, by name).

    `*_left`: what earlier waves left of the budget; 0 for the canaries. A device that went back by itself, or says
    nothing, or runs something else, has failed. `lost`: why the bake was cut short, which fails it.
    """
    failed = {seen.device: seen.reason or "the switch failed" for seen in wave if seen.outcome == "failed"}
    unreachable = [seen.device for seen in wave if seen.outcome == "unreachable"]
    well: list[Seen] = []
    for seen in wave:
        if seen.outcome != "ok":
            continue
        wrong = _wrong(seen, release if isinstance(release, str) else release[seen.device], rules)
        if wrong:
            failed[seen.device] = wrong
        else:
            well.append(seen)
    checks = [Check("bake", "fail", lost)] if lost else []
    checks += [
        _budget("failed", [f"{name} ({why})" for name, why in failed.items()], list(failed), failed_left),
        _budget("unreachable", unreachable, unreachable, unreachable_left),
        _evidence(rules, well),
        _errors(rules, well, rest),
        _latency(rules, well, rest),
        _feedback(rules, well, rest),
        _predictions(rules, well),
    ]
    statuses = {check.status for check in checks}
    status: Any = "fail" if "fail" in statuses else "inconclusive" if "inconclusive" in statuses else "pass"
    return Verdict(status, tuple(checks), tuple(failed), tuple(unreachable), failed)


def _wrong(seen: Seen, release: str, rules: VerdictThresholds) -> str:
    """What alone makes a device failed, or nothing."""
    if seen.after is None:
        return "silent during the bake"
    return amiss(seen.after, release, rules) or (
        "still on trial at the end of the bake" if seen.after.get("trial") else ""
    )


def amiss(report: Report, release: str, rules: VerdictThresholds) -> str:
    """What is wrong with a device whatever else it does until the end of the bake, or nothing."""
    if report["release"] != release:
        return f"runs {report['release'] or 'no release'}: it went back by itself"
    if report["restarts"] > rules.restarts:
        return f"{report['restarts']} restart(s) since the switch, at most {rules.restarts} allowed"
    grown = (report["memory_bytes"] - report["memory_at_start_bytes"]) / 1e6
    if grown > rules.memory_growth_mb:
        return f"its memory grew by {grown:.0f} MB, at most {rules.memory_growth_mb:g} allowed"
    return ""


def overrun(rules: VerdictThresholds, wave: Sequence[Seen]) -> str:
    """Why the share of failed inferences is beyond its bound, for certain, before the bake ends; or nothing.

    One-sided binomial test. It is made at every look: only a hundredth of the usual doubt is allowed.
    """
    errors, total = _counted(wave, "errors")
    if not total or errors / total <= rules.error_share:
        return ""
    from scipy.stats import binomtest  # slow, and most waves have nothing to test

    chance = binomtest(errors, total, rules.error_share, alternative="greater").pvalue
    words = f"{errors} of {total} inferences failed, at most {rules.error_share:.2%} allowed"
    return words if chance < (1 - rules.confidence) / 100 else ""


def _budget(name: str, told: Sequence[str], devices: Sequence[str], left: int) -> Check:
    words = f"{len(told)} device(s), {left} allowed" + (f": {', '.join(told[:5])}" if told else "")
    return Check(name, "fail" if len(told) > left else "pass", words, tuple(devices))


def _evidence(rules: VerdictThresholds, wave: Sequence[Seen]) -> Check:
    answered = sum(int(seen.after["inferences"]) for seen in wave if seen.after)
    status: Status = "pass" if answered >= rules.min_inferences else "inconclusive"
    return Check("evidence", status, f"{answered} inferences since the switch, at least {rules.min_inferences} needed")


def _errors(rules: VerdictThresholds, wave: Sequence[Seen], rest: Sequence[Seen]) -> Check:
    """The share of failed inferences: against a bound, and against the rest and the own past (Fisher's exact test)."""
    errors, total = _counted(wave, "errors")
    if not total:
        return Check("errors", "not judged", "no inferences")
    share = errors / total
    past_errors, past_total = _counted(rest, "errors", since=True)
    own_errors, own_total = _counted(wave, "errors", past=True)
    other_errors, other_total = past_errors + own_errors, past_total + own_total
    words = f"{errors} of {total} failed ({share:.2%})"
    if share > rules.error_share:
        return Check("errors", "fail", f"{words}, at most {rules.error_share:.2%} allowed")
    if other_total and _more(errors, total, other_errors, other_total, rules.confidence):
        return Check("errors", "fail", f"{words}, elsewhere and before {other_errors} of {other_total}")
    return Check("errors", "pass", words)


def _latency(rules: VerdictThresholds, wave: Sequence[Seen], rest: Sequence[Seen]) -> Check:
    """p95 over the own past's p95, as the median over devices, and divided by what the rest did meanwhile."""
    own = _latency_ratios(wave, rules)
    if not own:
        return Check("latency", "not judged", "no past to compare with")
    elsewhere = _latency_ratios(rest, rules)
    drift = max(1.0, statistics.median(elsewhere.values())) if elsewhere else 1.0
    factor = statistics.median(own.values()) / drift
    slow = tuple(name for name, ratio in own.items() if ratio / drift > rules.latency_factor)
    status: Status = "fail" if factor > rules.latency_factor else "pass"
    return Check("latency", status, f"p95 {factor:.2f} times the past, at most {rules.latency_factor:g} allowed", slow)


def _latency_ratios(devices: Sequence[Seen], rules: VerdictThresholds) -> dict[str, float]:
    floor = rules.latency_floor_ms / 1000
    found = {}
    for seen in devices:
        before, after = _p95(seen.before), _p95(seen.after)
        if before and after:
            found[seen.device] = max(after, floor) / max(before, floor)
    return found


def _p95(report: Report | None) -> float | None:
    return report["latency_s"]["p95"] if report and report.get("release") else None


def _feedback(rules: VerdictThresholds, wave: Sequence[Seen], rest: Sequence[Seen]) -> Check:
    """Accuracy by feedback, against the rest and the own past (Fisher's exact test)."""
    wrong, total = _judged(wave)
    if total < rules.feedback_min:
        return Check("feedback", "not judged", f"{total} labels, at least {rules.feedback_min} needed")
    rest_wrong, rest_total = _judged(rest)
    own_wrong, own_total = _judged(wave, past=True)
    before_wrong, before_total = rest_wrong + own_wrong, rest_total + own_total
    accuracy = 1 - wrong / total
    if before_total < rules.feedback_min:
        return Check("feedback", "not judged", f"accuracy {accuracy:.2%}, {before_total} labels to compare with")
    before = 1 - before_wrong / before_total
    words = f"accuracy {accuracy:.2%} by {total} labels, elsewhere and before {before:.2%} by {before_total}"
    worse = before - accuracy > rules.feedback_drop and _more(
        wrong, total, before_wrong, before_total, rules.confidence
    )
    return Check("feedback", "fail" if worse else "pass", words)


def _predictions(rules: VerdictThresholds, wave: Sequence[Seen]) -> Check:
    """PSI of the predicted classes against the own past; what chance alone gives in 99 of 100 cases is noise."""
    now, past = _classes(wave, past=False), _classes(wave, past=True)
    names = sorted(set(now) | set(past))
    n, m = sum(now.values()), sum(past.values())
    if min(n, m) < rules.prediction_min or len(names) < 2:
        return Check("predictions", "not judged", f"{n} and {m} predictions, {rules.prediction_min} of each needed")
    import numpy as np
    from edge_agent.monitoring.drift import null_quantile, psi

    shares = np.array([past.get(name, 0) for name in names]) / m
    found = psi(shares, np.array([now.get(name, 0) for name in names]))
    allowed = max(rules.prediction_psi, null_quantile(len(names), n, m))
    status: Status = "fail" if found > allowed else "pass"
    return Check("predictions", status, f"PSI {found:.3f} against the past, at most {allowed:.3f} allowed")


def _more(events: int, of: int, other: int, other_of: int, confidence: float) -> bool:
    """Whether the first share is larger than the second one, by more than chance (one-sided Fisher's exact test)."""
    from scipy.stats import fisher_exact

    table = [[events, of - events], [other, other_of - other]]
    return bool(fisher_exact(table, alternative="greater").pvalue < 1 - confidence)


def _counted(devices: Sequence[Seen], what: str, *, past: bool = False, since: bool = False) -> tuple[int, int]:
    """Events and all inferences; `past`: before the switch; `since`: during the bake alone."""
    events = total = 0
    for seen in devices:
        report = seen.before if past else seen.after
        if not report or not report.get("release"):
            continue
        own, tries = int(report[what]), int(report["inferences"]) + int(report["errors"])
        if since and seen.before and seen.before.get("release") == report["release"]:
            own -= int(seen.before[what])
            tries -= int(seen.before["inferences"]) + int(seen.before["errors"])
        own = max(own, 0)
        events, total = events + own, total + max(tries, own)  # what was reset meanwhile counts as nothing
    return events, total


def _judged(devices: Sequence[Seen], *, past: bool = False) -> tuple[int, int]:
    reports = [seen.before if past else seen.after for seen in devices]
    own = [report["feedback"] for report in reports if report and report.get("release")]
    return sum(int(each["wrong"]) for each in own), sum(int(each["n"]) for each in own)


def _classes(devices: Sequence[Seen], *, past: bool) -> dict[str, int]:
    total: dict[str, int] = {}
    for seen in devices:
        report = seen.before if past else seen.after
        if report and report.get("release"):
            for name, count in report["predictions"].items():
                total[name] = total.get(name, 0) + int(count)
    return total
