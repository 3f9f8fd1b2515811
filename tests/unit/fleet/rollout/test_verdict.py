"""The verdict on a wave: every check can fail, chance does not stop a rollout, and without evidence no wave passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleet.devices.messages import IdleReport, Report, ServingReport
from fleet.inventory.rollout_policy import VerdictThresholds
from fleet.rollout.verdict import Verdict, judge
from fleet.rollout.verdict_checks import DeviceObservation as Observation

OLD, NEW = "digits@1.0.0", "digits@1.1.0"
CLASSES = [str(digit) for digit in range(10)]


def report(release: str | None = NEW, **changed: Any) -> Report:
    """Return the report of a healthy device after 1000 inferences."""
    if release is None:
        return IdleReport(release=None)
    content: dict[str, Any] = {
        "release": release,
        "restarts": 0,
        "trial": False,
        "memory_bytes": 80_000_000,
        "memory_at_start_bytes": 78_000_000,
        "inferences": 1000,
        "errors": 0,
        "latency_s": {"p50": 0.004, "p95": 0.005, "p99": 0.006},
        "predictions": dict.fromkeys(CLASSES, 100),
        "feedback": {"correct": 98, "wrong": 2, "n": 100, "accuracy": 0.98},
    }
    return ServingReport.model_validate(content | changed)


def observed(name: str, before: Report | None = None, **after: Any) -> Observation:
    return Observation(name, "ok", "", before or report(OLD), report(**after))


def verdict_on(
    wave: list[Observation],
    control_group: list[Observation] | None = None,
    failed_budget: int = 0,
    unreachable_budget: int = 0,
) -> Verdict:
    rules = VerdictThresholds(min_inferences=100)
    return judge(
        rules, NEW, wave, control_group or [], failed_budget=failed_budget, unreachable_budget=unreachable_budget
    )


def failing(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if check.status == "fail"]


def test_a_healthy_wave_passes_every_check() -> None:
    verdict = verdict_on(
        [observed("a"), observed("b")], [observed("c", before=report(OLD), release=OLD, inferences=2000)]
    )

    assert verdict.status == "pass"
    assert {check.status for check in verdict.checks} == {"pass"}
    assert verdict.reason() == "every check passed"


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"release": OLD}, "rolled back automatically"),
        ({"release": None}, "runs no release"),
        ({"trial": True}, "still on trial"),
        ({"restarts": 1}, "1 restart"),
        ({"memory_bytes": 178_000_000}, "memory grew by 100 MB"),
    ],
)
def test_a_device_that_fails_alone_fails_the_canaries(after: dict[str, Any], words: str) -> None:
    verdict = verdict_on([observed("a"), observed("b", **after)])

    assert (verdict.status, verdict.failed) == ("fail", ("b",))
    assert words in verdict.reason()


def test_a_silent_canary_has_failed() -> None:
    verdict = verdict_on([observed("a"), Observation("b", "ok", "", report(OLD), None)])

    assert (verdict.status, verdict.failed) == ("fail", ("b",))
    assert "did not respond" in verdict.reason()


def test_an_unreachable_canary_stops_the_rollout_and_is_not_a_failed_one() -> None:
    verdict = verdict_on([observed("a"), Observation("b", "unreachable")])

    assert (verdict.status, verdict.failed, verdict.unreachable) == ("fail", (), ("b",))


def test_later_waves_have_a_budget_and_failed_and_unreachable_are_counted_apart() -> None:
    wave = [
        observed("a"),
        Observation("b", "failed", "exit code 5"),
        Observation("c", "unreachable"),
        Observation("d", "unreachable"),
    ]

    assert verdict_on(wave, failed_budget=1, unreachable_budget=2).status == "pass"
    assert failing(verdict_on(wave, failed_budget=0, unreachable_budget=2)) == ["failed"]
    assert failing(verdict_on(wave, failed_budget=4, unreachable_budget=1)) == ["unreachable"]


def test_a_wave_without_enough_inferences_does_not_pass() -> None:
    few = {"inferences": 10, "predictions": {"0": 10}, "feedback": {"correct": 0, "wrong": 0, "n": 0, "accuracy": None}}

    verdict = verdict_on([observed("a", **few)])

    assert verdict.status == "inconclusive"
    assert "10 inferences" in verdict.reason()


def test_a_wave_without_a_healthy_device_fails() -> None:
    assert verdict_on([Observation("a", "failed", "exit code 5")]).status == "fail"


def test_errors_above_the_bound_fail_whatever_the_control_group_does() -> None:
    bad = {"inferences": 950, "errors": 50}

    assert failing(verdict_on([observed("a", **bad)], [observed("c", before=report(OLD), release=OLD, **bad)])) == [
        "errors"
    ]


def test_errors_below_the_bound_fail_where_the_control_group_has_none() -> None:
    verdict = verdict_on(
        [observed("a", inferences=1991, errors=9)], [observed(f"c{i}", release=OLD, inferences=9000) for i in range(3)]
    )

    assert failing(verdict) == ["errors"]
    assert "in the control group and before the rollout 0 of" in verdict.reason()


def test_a_single_error_is_chance() -> None:
    verdict = verdict_on([observed("a", inferences=999, errors=1)], [observed("c", release=OLD, inferences=4000)])

    assert verdict.status == "pass"


def test_a_slower_model_fails_and_a_slower_fleet_does_not() -> None:
    slow = {"latency_s": {"p50": 0.012, "p95": 0.015, "p99": 0.02}}
    calm = [observed("c", release=OLD)]
    busy = [observed("c", release=OLD, **slow)]

    assert failing(verdict_on([observed("a", **slow)], calm)) == ["latency"]
    assert verdict_on([observed("a", **slow)], busy).status == "pass"


def test_microseconds_are_not_compared() -> None:
    before = report(OLD, latency_s={"p50": 0.00002, "p95": 0.00003, "p99": 0.0001})
    after = {"latency_s": {"p50": 0.0001, "p95": 0.0002, "p99": 0.0003}}

    assert verdict_on([observed("a", before=before, **after)]).status == "pass"


def test_feedback_shows_a_model_that_answers_wrongly() -> None:
    many_wrong = {"feedback": {"correct": 70, "wrong": 30, "n": 100, "accuracy": 0.7}}

    assert failing(verdict_on([observed("a", **many_wrong)], [observed("c", release=OLD)])) == ["feedback"]


def test_little_feedback_is_not_judged() -> None:
    many_wrong = {"feedback": {"correct": 1, "wrong": 3, "n": 4, "accuracy": 0.25}}

    verdict = verdict_on([observed("a", **many_wrong)])

    assert verdict.status == "pass"
    assert [check.status for check in verdict.checks if check.name == "feedback"] == ["not judged"]


def test_predictions_that_shift_fail() -> None:
    one_class = {"predictions": {**dict.fromkeys(CLASSES, 10), "8": 910}}

    assert failing(verdict_on([observed("a", **one_class)])) == ["predictions"]


def test_false_alarms_of_the_prediction_check_are_rare() -> None:
    """Count the false alarms of 400 verdicts on two samples of 150 predictions from one distribution."""
    random = np.random.default_rng(1)
    alarms = 0
    for _ in range(400):
        before, now = (dict(zip(CLASSES, map(int, random.multinomial(150, [0.1] * 10)), strict=True)) for _ in range(2))
        counts = {"inferences": 150, "feedback": {"correct": 0, "wrong": 0, "n": 0, "accuracy": None}}
        verdict = verdict_on(
            [observed("a", before=report(OLD, predictions=before, **counts), predictions=now, **counts)]
        )
        alarms += verdict.status == "fail"

    assert alarms <= 8  # 1% of 400, and what chance allows above it


def test_a_first_release_is_judged_by_its_bounds_alone() -> None:
    first = Observation("a", "ok", "", report(None), report())

    verdict = verdict_on([first])

    assert verdict.status == "pass"
    assert {check.name: check.status for check in verdict.checks}["latency"] == "not judged"


def test_the_verdict_is_json() -> None:
    import json

    recorded = json.loads(json.dumps(verdict_on([observed("a")]).record().as_json()))

    assert recorded["status"] == "pass"
    assert {check["name"] for check in recorded["checks"]} == {
        "failed", "unreachable", "evidence", "errors", "latency", "feedback", "predictions",
    }  # fmt: skip
