"""The steps of a rollout without devices: statuses go in, decisions and records come out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet.devices.messages import StatusResponse
from fleet.errors import BusyError, ConfigurationError, RolloutError
from fleet.records import rollout_audit, rollout_folder
from fleet.records.state import Owner
from fleet.rollout import release_history, resume
from tests.support.fleet.rollouts import (
    NEW,
    OLD,
    UNREACHABLE,
    begin,
    controller,
    done,
    plan,
    status,
    status_json,
    through_canary,
)


def test_a_failed_canary_closes_every_later_wave(root: Path) -> None:
    started = begin(root, budget={"failed": 4, "unreachable": 4})
    controller(started).open_wave(["a"])

    result = controller(started).judge_wave({"a": done(OLD, "failed", "golden sample 3")}, {})

    assert result.status == "fail" and "golden sample 3" in result.reason
    refused = controller(started).open_wave(["b", "c", "d"])
    assert not refused.go and "did not pass" in refused.reason


def test_an_unreachable_canary_closes_every_later_wave(root: Path) -> None:
    started = begin(root, budget={"failed": 4, "unreachable": 4})
    controller(started).open_wave(["a"])

    assert controller(started).judge_wave({"a": UNREACHABLE}, {}).status == "fail"
    assert not controller(started).open_wave(["b", "c", "d"]).go


def test_a_device_that_catches_up_with_a_proven_release_is_not_a_canary(root: Path) -> None:
    """`a` runs the release already; `d` is switched off."""
    changed = {
        "proven": [NEW],
        "devices": {name: {**each, "groups": [name]} for name, each in plan()["devices"].items()},
    }
    waves_of = [{"name": "one", "group": "a"}, {"name": "rest", "rest": True}]
    started = begin(
        root, {"a": status(NEW), "d": None}, changed, waves=waves_of, budget={"failed": 1, "unreachable": 1}
    )
    assert started.order == ["b", "c"], started.reason
    assert controller(started).open_wave(["b", "c"]).go

    result = controller(started).judge_wave({"b": done(), "c": done(OLD, "failed", "a worn card")}, {})

    assert result.status == "pass"
    assert set(controller(started).decide_rollbacks({"b": status(NEW), "c": status(OLD)}).back) == {"c"}


def test_the_latest_result_of_a_release_counts(root: Path) -> None:
    def rolled(verdict: str) -> None:
        started = begin(root)
        controller(started).open_wave(["a"])
        controller(started).judge_wave({"a": done() if verdict == "pass" else done(OLD, "failed", "no")}, {})
        controller(started).close({})

    assert release_history.load("farm", [NEW], root) == release_history.ReleaseHistory()
    rolled("pass")
    assert release_history.load("farm", [NEW, OLD], root).proven == {NEW}
    resume.abandon(rollout_folder.find("farm", None, root), "another one")
    rolled("fail")
    history = release_history.load("farm", [NEW], root)
    assert history.proven == set() and "failed in rollout" in history.failed[NEW]
    with pytest.raises(RolloutError, match=r"pump@1\.1\.0: .*failed in rollout"):
        begin(root)
    damaged = rollout_folder.find("farm", None, root).folder / "state.json"
    damaged.write_bytes(b"\xff\xfe" + damaged.read_bytes())
    assert release_history.load("farm", [NEW], root).proven == {NEW}, "what cannot be read is passed over"


@pytest.mark.parametrize(("allowed", "verdict"), [(1, "pass"), (0, "fail")])
def test_the_budget_is_the_fleets(root: Path, allowed: int, verdict: str) -> None:
    started = begin(root, budget={"failed": allowed})
    through_canary(started)
    controller(started).open_wave(["b", "c", "d"])

    result = controller(started).judge_wave({"b": done(), "c": done(), "d": done(OLD, "failed", "no space")}, {})

    assert result.status == verdict
    statuses = {"a": status(NEW), "b": status(NEW), "c": status(NEW), "d": status(OLD)}
    rolled_back = controller(started).decide_rollbacks(statuses).back
    assert set(rolled_back) == ({"d"} if verdict == "pass" else {"a", "b", "c", "d"})
    assert {each.to for each in rolled_back.values()} == {OLD}


def test_other_bytes_than_published_count_as_failed(root: Path) -> None:
    started = begin(root)
    controller(started).open_wave(["a"])

    result = controller(started).judge_wave({"a": done(sha256="e" * 64)}, {})

    assert result.status == "fail" and "has loaded a model file with sha256 eeeeeeeeeeee" in result.reason


def test_too_little_evidence_pauses(root: Path) -> None:
    started = begin(root, judge={"min_inferences": 51})
    controller(started).open_wave(["a"])

    assert controller(started).judge_wave({"a": done()}, {}).status == "inconclusive"
    assert not controller(started).open_wave(["b", "c", "d"]).go
    assert controller(started).decide_rollbacks({"a": status(NEW)}).back == {}
    assert controller(started).close({}).status == "paused"


def test_a_canary_that_rolls_back_after_its_wave_fails_the_rollout(root: Path) -> None:
    started = begin(root)
    through_canary(started)
    controller(started).open_wave(["b", "c", "d"])
    controller(started).judge_wave({name: done() for name in "bcd"}, {})

    result = controller(started).decide_rollbacks(
        {**{name: status(NEW) for name in "bcd"}, "a": status(OLD, bad={NEW: "crashed"})}
    )

    assert result.failed and set(result.back) == set("abcd")


@pytest.mark.parametrize(
    ("silent", "rolled_back", "failed"),
    [("bcd", "", True), ("b", "", False), ("", "bc", True), ("", "b", False), ("", "a", True)],
)
def test_late_failures_share_the_budget_and_canaries_have_none(
    root: Path, silent: str, rolled_back: str, failed: bool
) -> None:
    """Devices fall silent or roll back after both waves passed."""
    started = begin(root, budget={"failed": 1, "unreachable": 1})
    through_canary(started)
    controller(started).open_wave(["b", "c", "d"])
    controller(started).judge_wave({name: done() for name in "bcd"}, {})

    result = controller(started).decide_rollbacks(
        {name: None if name in silent else status(OLD if name in rolled_back else NEW) for name in "abcd"}
    )

    assert (result.failed, set(result.back)) == (failed, set("abcd") if failed else set(rolled_back))
    answers = {name: StatusResponse(None if name in silent else status(OLD), "gone") for name in result.back}
    assert controller(started).close(answers).status == ("failed" if failed else "passed")


def test_a_pause_does_not_restore_the_budget(root: Path) -> None:
    waves = [{"name": "one", "count": 1}, {"name": "two", "count": 2}, {"name": "rest", "rest": True}]
    started = begin(root, waves=waves, budget={"failed": 1}, approve=["rest"])
    through_canary(started)
    controller(started).open_wave(["b", "c"])
    assert controller(started).judge_wave({"b": done(), "c": done(OLD, "failed", "no space")}, {}).status == "pass"
    assert not controller(started).open_wave(["d"]).go
    assert set(controller(started).decide_rollbacks({"a": status(NEW), "b": status(NEW), "c": status(OLD)}).back) == {
        "c"
    }
    assert controller(started).close({"c": StatusResponse(status(OLD))}).status == "paused"
    assert controller(started).state.devices["c"].outcome == "back"

    state = controller(started).state
    controller(started).save(replace(state, status="running", reason=""))
    assert controller(started).open_wave(["d"], "ann").go

    assert controller(started).judge_wave({"d": done(OLD, "failed", "no space")}, {}).status == "fail"


def test_a_device_without_a_previous_release_is_reported(root: Path) -> None:
    started = begin(root, {"a": status(None, service={"running": True, "fault": None, "loaded": None})})
    controller(started).open_wave(["a"])
    controller(started).judge_wave({"a": done(report={**status_json(NEW)["report"], "restarts": 3})}, {})

    assert controller(started).decide_rollbacks({"a": status(NEW)}).back == {}
    table = controller(started).close({}).table

    assert any(f"the device keeps {NEW}: it ran no release before" in row for row in table)


def test_a_device_that_cannot_roll_back_is_pending(root: Path) -> None:
    started = begin(root)
    controller(started).open_wave(["a"])
    controller(started).judge_wave({"a": done(restarts=3, report={**status_json(NEW)["report"], "restarts": 3})}, {})
    controller(started).decide_rollbacks({"a": status(NEW)})

    result = controller(started).close({"a": StatusResponse(None, "no route to host")})

    assert result.status == "failed"
    assert controller(started).state.devices["a"].outcome == "pending"


def test_the_audit_trail_has_durations_and_devices(root: Path) -> None:
    began = datetime.now(UTC)
    started = begin(root)
    controller(started).open_wave(["a"])
    state = controller(started).state
    opened = (began - timedelta(seconds=60)).isoformat(timespec="seconds").replace("+00:00", "Z")
    controller(started).save(state.with_wave("one", opened=opened))
    controller(started).judge_wave({"a": done(OLD, "failed", "golden sample 3")}, {})
    controller(started).decide_rollbacks({"a": status(NEW)})
    controller(started).close({"a": StatusResponse(status(OLD))})

    lines = list(rollout_audit.read(rollout_folder.rollouts("farm", root)))
    seconds = {line.action: line.seconds for line in lines}
    passed = (datetime.now(UTC) - began).total_seconds() + 2  # what is recorded are whole seconds
    assert 60 <= seconds["judge"] <= 60 + passed
    assert 0 <= seconds["back"] <= passed and 0 <= seconds["close"] <= passed
    assert seconds["begin"] is seconds["open"] is seconds["deploy"] is None, "no duration was measured"
    of_a = [line.action for line in rollout_audit.select(lines, device="a")]
    assert of_a == ["open", "deploy", "judge", "back"]
    assert [line.action for line in rollout_audit.select(lines, device="b")] == []


def test_a_clock_that_was_set_back_gives_no_duration() -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    assert [rollout_audit.seconds_since(at) for at in (later, "yesterday", "", None)] == [None] * 4


def test_a_rollout_that_another_process_runs_is_refused(root: Path) -> None:
    started = begin(root)
    state = controller(started).state
    controller(started).save(replace(state, owner=Owner("elsewhere", 1, 0.0)))

    with pytest.raises(BusyError, match="elsewhere"):
        controller(started)


def test_devices_that_are_not_a_wave_are_refused(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="no wave of this rollout has the devices"):
        controller(begin(root)).open_wave(["a", "b"])
