"""fleet.rollout.bake: the number of looks at a wave, and what ends its bake early."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from fleet.devices.messages import AgentStatus
from fleet.rollout import bake
from fleet.rollout.step_results import BakeLook, PreflightResult
from tests.support.fleet.rollouts import NEW, OLD, Json, begin, controller, done, status, status_json, through_canary

DAY_S = 86400.0


def report(**changed: object) -> Json:
    return {**status_json(NEW)["report"], **changed}


def look(
    started: PreflightResult, statuses: Mapping[str, AgentStatus | None], previous: BakeLook, now_s: float
) -> BakeLook:
    return bake.look(controller(started), dict.fromkeys(statuses, "ok"), statuses, previous, now_s)


def open_canary(root: Path, **rules: object) -> PreflightResult:
    started = begin(root, **{"bake_s": 600, "bake_poll_s": 30, **rules})
    assert controller(started).open_wave(["a"]).go
    return started


def first_look(started: PreflightResult, now_s: float = 1000.0) -> BakeLook:
    return bake.look(controller(started), {"a": "ok"}, {}, None, now_s)


@pytest.mark.parametrize(
    ("bake_s", "poll_s", "number"), [(0, 30, 1), (30, 30, 1), (0.5, 30, 1), (300, 30, 10), (DAY_S, 30, 70)]
)
def test_a_bake_has_at_most_this_many_looks(bake_s: float, poll_s: float, number: int) -> None:
    assert bake.max_looks(bake_s, poll_s) == number


@pytest.mark.parametrize("asking_s", [0.0, 1.0, 100.0])
def test_pauses_add_up_to_the_bake_and_are_a_tenth_of_it_at_most(asking_s: float) -> None:
    elapsed, last, steps = 0.0, 0.0, 0
    while elapsed < DAY_S:
        step = bake.pause(elapsed, asking_s, DAY_S, 30)
        assert step > 0 and (step <= max(33, elapsed * 0.11, asking_s * 9.1) or elapsed + step == DAY_S)
        elapsed, last, steps = elapsed + step + asking_s, step, steps + 1

    assert steps <= bake.max_looks(DAY_S, 30), "the playbook has no more"
    assert last > 1


def test_a_healthy_wave_is_watched_to_the_end(root: Path) -> None:
    started, now = open_canary(root), 1000.0
    last, looks = first_look(started, now), 1
    while last.again:
        now += last.wait_s + 0.4
        last, looks = look(started, {"a": status(NEW)}, last, now), looks + 1

    assert last.until_s >= 1600 and looks <= bake.max_looks(600, 30)
    assert controller(started).state.wave("one").lost is None
    assert controller(started).judge_wave({"a": done()}, {}).status == "pass"


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (status(NEW, report=report(restarts=1)), "1 restart(s) since the switch"),
        (status(OLD, bad={NEW: "crashed"}), "it rolled back automatically: crashed"),
        (status(OLD), f"runs {OLD}: it rolled back automatically"),
        (status(NEW, sha256="e" * 64), "has loaded a model file with sha256 eeeeeeeeeeee"),
        (status(NEW, report=report(memory_bytes=100_000_001)), "its memory grew by 100 MB"),
    ],
)
def test_a_failed_canary_ends_the_bake(root: Path, last: AgentStatus, words: str) -> None:
    started = open_canary(root)

    result = look(started, {"a": last}, first_look(started), 1030.0)

    assert (result.again, result.wait_s) == (False, 0.0)
    # By then it may look well again: what was seen counts.
    judged = controller(started).judge_wave({"a": done()}, {})
    assert judged.status == "fail"
    assert "cut short after 30 s" in judged.reason and words in judged.reason
    assert controller(started).decide_rollbacks({"a": status(NEW)}).back["a"].to == OLD


@pytest.mark.parametrize("nothing", [None, status(NEW, report=None)])
def test_a_device_that_is_silent_twice_in_a_row_has_failed(root: Path, nothing: AgentStatus | None) -> None:
    started = open_canary(root)

    once = look(started, {"a": nothing}, first_look(started), 1030.0)
    assert once.again and once.silent == ["a"]
    healthy = look(started, {"a": status(NEW)}, once, 1060.0)
    assert healthy.again
    once = look(started, {"a": nothing}, healthy, 1090.0)
    assert once.again, "not in a row"

    assert not look(started, {"a": nothing}, once, 1120.0).again
    judged = controller(started).judge_wave({"a": done()}, {})
    assert judged.status == "fail" and "two checks in a row" in judged.reason


@pytest.mark.parametrize(("allowed", "again"), [(1, True), (0, False)])
def test_the_budget_is_the_fleets(root: Path, allowed: int, again: bool) -> None:
    started = begin(root, bake_s=600, budget={"failed": allowed})
    through_canary(started)
    controller(started).open_wave(["b", "c", "d"])
    outcomes = dict.fromkeys("bcd", "ok")
    statuses = {"b": status(NEW), "c": status(NEW), "d": status(OLD)}

    result = bake.look(
        controller(started), outcomes, statuses, bake.look(controller(started), outcomes, {}, None, 0.0), 30.0
    )

    assert result.again is again


def test_a_wave_that_failed_to_switch_is_not_watched(root: Path) -> None:
    started = open_canary(root)

    result = bake.look(controller(started), {"a": "failed"}, {}, None, 0.0)

    assert (result.again, result.wait_s) == (False, 0.0)


@pytest.mark.parametrize(("errors", "again"), [(1, True), (3, True), (10, False)])
def test_errors_beyond_chance_end_the_bake(root: Path, errors: int, again: bool) -> None:
    """Of 50 inferences 1% may fail. Two or three may be chance, which the verdict at the end of the bake decides."""
    started = open_canary(root)

    result = look(started, {"a": status(NEW, report=report(errors=errors))}, first_look(started), 1030.0)

    assert result.again is again


def test_a_wave_that_is_opened_again_bakes_from_the_start(root: Path) -> None:
    """The controller was killed between the look and the verdict."""
    started = open_canary(root)
    look(started, {"a": status(OLD)}, first_look(started), 1030.0)
    assert controller(started).state.wave("one").lost

    assert controller(started).open_wave(["a"]).go

    assert controller(started).state.wave("one").lost is None
