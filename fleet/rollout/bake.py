"""A wave is watched while it bakes: how often it is looked at, and when it is lost before the end.

A release that is bad at once is found at once; one that was well for hours is found within a tenth of them. So a bake
of a day takes some seventy looks, and not thousands. Asking many devices takes time: it may take a tenth of the bake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.rollout import verdict
from fleet.rollout.controller import Course

Json = dict[str, Any]
SHARE = 0.1


def watch(
    course: Course, outcomes: Mapping[str, str], asked: Mapping[str, Json | None], looked: Json, now_s: float
) -> Json:
    """How long to wait until the wave is looked at again, or is judged; one that is lost is judged now.

    `outcomes` of the switch, by device; `asked`: their statuses, empty before the first look; `looked`: what this said
    last, or {}; `now_s`: of a clock that nobody sets.
    """
    wave, rules = course.wave_of(list(outcomes)), course.rules
    there = {name: status for name, status in asked.items() if outcomes[name] == "ok"}
    silent = [name for name, status in there.items() if not _report(status)]
    began, asking = (looked["began_s"], now_s - looked["until_s"]) if looked else (now_s, 0.0)
    left = {name: number - list(outcomes.values()).count(name) for name, number in course.left(wave).items()}
    over = min(left.values()) < 0
    twice = [name for name in silent if name in looked["silent"]]  # once may be the network
    lost = None if over else _lost(course, there, twice, left["failed"])
    wait = 0.0 if over or lost else pause(now_s - began, asking, rules.bake_s, rules.bake_poll_s)
    if lost:
        reason = f"cut short after {now_s - began:.0f} s: {lost['reason']}"
        course.say("watch", "lost", detail=f"wave {wave.name}: {reason}")
        course.save(course.state.with_wave(wave.name, lost={**lost, "reason": reason}))
    return {
        "wave": wave.name,
        "again": not over and not lost and now_s + wait < began + rules.bake_s,
        "wait_s": wait,
        "began_s": began,
        "until_s": now_s + wait,
        "silent": silent,
    }


def _report(status: Json | None) -> Json | None:
    return status.get("report") if status else None


def _lost(course: Course, there: Mapping[str, Json | None], silent: list[str], failed_left: int) -> Json | None:
    """Why a wave whose devices say this cannot pass any more; None: it may."""
    wrong = dict.fromkeys(silent, "silent during the bake, twice in a row")
    seen = [course.seen(name, {"outcome": "ok", "reason": "", "status": each}, {}) for name, each in there.items()]
    for each in seen:
        if each.after:
            release = course.state.devices[each.device].release
            why = each.reason or verdict.amiss(each.after, release, course.rules.judge)
            wrong |= {each.device: why} if why else {}
    if len(wrong) > failed_left:
        return {"reason": f"{len(wrong)} device(s) failed", "devices": wrong}
    errors = verdict.overrun(course.rules.judge, seen)
    return {"reason": errors, "devices": wrong} if errors else None


def pause(elapsed_s: float, asking_s: float, bake_s: float, poll_s: float) -> float:
    """Seconds until the next look, or until the bake ends, which is `bake_s` after it began.

    `asking_s`: how long the last look took.
    """
    left = max(bake_s - elapsed_s, 0.0)
    wanted = max(poll_s, elapsed_s * SHARE, asking_s * (1 - SHARE) / SHARE)
    return left if left - wanted < poll_s * SHARE else wanted  # no look just before the last one


def looks(bake_s: float, poll_s: float) -> int:
    """How many looks that can be at most, the last one included."""
    elapsed, number = 0.0, 1
    while (step := pause(elapsed, 0.0, bake_s, poll_s)) < bake_s - elapsed:
        elapsed, number = elapsed + step, number + 1
    return number
