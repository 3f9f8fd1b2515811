"""The steps of a rollout, without devices: what agents would say goes in, what is decided and recorded comes out."""

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
    begun = begin(root, budget={"failed": 4, "unreachable": 4})
    controller(begun).open_wave(["a"])

    told = controller(begun).judge_wave({"a": done(OLD, "failed", "golden sample 3")}, {})

    assert told.status == "fail" and "golden sample 3" in told.reason
    refused = controller(begun).open_wave(["b", "c", "d"])
    assert not refused.go and "did not pass" in refused.reason


def test_an_unreachable_canary_closes_every_later_wave(root: Path) -> None:
    begun = begin(root, budget={"failed": 4, "unreachable": 4})
    controller(begun).open_wave(["a"])

    assert controller(begun).judge_wave({"a": UNREACHABLE}, {}).status == "fail"
    assert not controller(begun).open_wave(["b", "c", "d"]).go


def test_who_catches_up_with_a_proven_release_is_no_canary(root: Path) -> None:
    """`a` runs it already; `d` is still off."""
    known = {"proven": [NEW], "devices": {name: {**each, "groups": [name]} for name, each in plan()["devices"].items()}}
    waves_of = [{"name": "one", "group": "a"}, {"name": "rest", "rest": True}]
    begun = begin(root, {"a": status(NEW), "d": None}, known, waves=waves_of, budget={"failed": 1, "unreachable": 1})
    assert begun.order == ["b", "c"], begun.reason
    assert controller(begun).open_wave(["b", "c"]).go

    told = controller(begun).judge_wave({"b": done(), "c": done(OLD, "failed", "a worn card")}, {})

    assert told.status == "pass"
    assert set(controller(begun).decide_rollbacks({"b": status(NEW), "c": status(OLD)}).back) == {"c"}


def test_the_latest_word_on_a_release_counts(root: Path) -> None:
    def rolled(verdict: str) -> None:
        begun = begin(root)
        controller(begun).open_wave(["a"])
        controller(begun).judge_wave({"a": done() if verdict == "pass" else done(OLD, "failed", "no")}, {})
        controller(begun).close({})

    assert release_history.load("farm", [NEW], root) == release_history.ReleaseHistory()
    rolled("pass")
    assert release_history.load("farm", [NEW, OLD], root).proven == {NEW}
    resume.abandon(rollout_folder.find("farm", None, root), "another one")
    rolled("fail")
    found = release_history.load("farm", [NEW], root)
    assert found.proven == set() and "failed in rollout" in found.failed[NEW]
    with pytest.raises(RolloutError, match=r"pump@1\.1\.0: .*failed in rollout"):
        begin(root)
    damaged = rollout_folder.find("farm", None, root).folder / "state.json"
    damaged.write_bytes(b"\xff\xfe" + damaged.read_bytes())
    assert release_history.load("farm", [NEW], root).proven == {NEW}, "what cannot be read is passed over"


@pytest.mark.parametrize(("allowed", "verdict"), [(1, "pass"), (0, "fail")])
def test_the_budget_is_the_fleets(root: Path, allowed: int, verdict: str) -> None:
    begun = begin(root, budget={"failed": allowed})
    through_canary(begun)
    controller(begun).open_wave(["b", "c", "d"])

    told = controller(begun).judge_wave({"b": done(), "c": done(), "d": done(OLD, "failed", "no space")}, {})

    assert told.status == verdict
    statuses = {"a": status(NEW), "b": status(NEW), "c": status(NEW), "d": status(OLD)}
    back = controller(begun).decide_rollbacks(statuses).back
    assert set(back) == ({"d"} if verdict == "pass" else {"a", "b", "c", "d"})
    assert {each["to"] for each in back.values()} == {OLD}


def test_other_bytes_than_published_count_as_failed(root: Path) -> None:
    begun = begin(root)
    controller(begun).open_wave(["a"])

    told = controller(begun).judge_wave({"a": done(sha256="e" * 64)}, {})

    assert told.status == "fail" and "has loaded sha256 eeeeeeeeeeee" in told.reason


def test_too_little_evidence_pauses(root: Path) -> None:
    begun = begin(root, judge={"min_inferences": 51})
    controller(begun).open_wave(["a"])

    assert controller(begun).judge_wave({"a": done()}, {}).status == "inconclusive"
    assert not controller(begun).open_wave(["b", "c", "d"]).go
    assert controller(begun).decide_rollbacks({"a": status(NEW)}).back == {}
    assert controller(begun).close({}).status == "paused"


def test_a_device_that_goes_back_after_its_wave_fails_the_rollout(root: Path) -> None:
    begun = begin(root)
    through_canary(begun)
    controller(begun).open_wave(["b", "c", "d"])
    controller(begun).judge_wave({name: done() for name in "bcd"}, {})

    told = controller(begun).decide_rollbacks(
        {**{name: status(NEW) for name in "bcd"}, "a": status(OLD, bad={NEW: "crashed"})}
    )

    assert told.failed and set(told.back) == set("abcd")


@pytest.mark.parametrize(
    ("gone", "back", "failed"),
    [("bcd", "", True), ("b", "", False), ("", "bc", True), ("", "b", False), ("", "a", True)],
)
def test_the_last_look_has_the_same_budget_and_canaries_none(root: Path, gone: str, back: str, failed: bool) -> None:
    """Devices that are silent, or have gone back, after both waves passed."""
    begun = begin(root, budget={"failed": 1, "unreachable": 1})
    through_canary(begun)
    controller(begun).open_wave(["b", "c", "d"])
    controller(begun).judge_wave({name: done() for name in "bcd"}, {})

    told = controller(begun).decide_rollbacks(
        {name: None if name in gone else status(OLD if name in back else NEW) for name in "abcd"}
    )

    assert (told.failed, set(told.back)) == (failed, set("abcd") if failed else set(back))
    answers = {name: StatusResponse(None if name in gone else status(OLD), "gone") for name in told.back}
    assert controller(begun).close(answers).status == ("failed" if failed else "passed")


def test_a_pause_gives_no_budget_back(root: Path) -> None:
    waves = [{"name": "one", "count": 1}, {"name": "two", "count": 2}, {"name": "rest", "rest": True}]
    begun = begin(root, waves=waves, budget={"failed": 1}, approve=["rest"])
    through_canary(begun)
    controller(begun).open_wave(["b", "c"])
    assert controller(begun).judge_wave({"b": done(), "c": done(OLD, "failed", "no space")}, {}).status == "pass"
    assert not controller(begun).open_wave(["d"]).go
    assert set(controller(begun).decide_rollbacks({"a": status(NEW), "b": status(NEW), "c": status(OLD)}).back) == {"c"}
    assert controller(begun).close({"c": StatusResponse(status(OLD))}).status == "paused"
    assert controller(begun).state.devices["c"].outcome == "back"

    state = controller(begun).state
    controller(begun).save(replace(state, status="running", reason=""))
    assert controller(begun).open_wave(["d"], "ann").go

    assert controller(begun).judge_wave({"d": done(OLD, "failed", "no space")}, {}).status == "fail"


def test_who_has_nothing_to_go_back_to_is_told(root: Path) -> None:
    begun = begin(root, {"a": status(None, service={"running": True, "fault": None, "loaded": None})})
    controller(begun).open_wave(["a"])
    controller(begun).judge_wave({"a": done(report={**status_json(NEW)["report"], "restarts": 3})}, {})

    assert controller(begun).decide_rollbacks({"a": status(NEW)}).back == {}
    table = controller(begun).close({}).table

    assert any(f"it stays on {NEW}: it ran no release before" in row for row in table)


def test_who_cannot_be_called_back_is_pending(root: Path) -> None:
    begun = begin(root)
    controller(begun).open_wave(["a"])
    controller(begun).judge_wave({"a": done(restarts=3, report={**status_json(NEW)["report"], "restarts": 3})}, {})
    controller(begun).decide_rollbacks({"a": status(NEW)})

    told = controller(begun).close({"a": StatusResponse(None, "no route to host")})

    assert told.status == "failed"
    assert controller(begun).state.devices["a"].outcome == "pending"


def test_the_trail_says_how_long_it_took_and_of_whom(root: Path) -> None:
    began = datetime.now(UTC)
    begun = begin(root)
    controller(begun).open_wave(["a"])
    state = controller(begun).state
    opened = (began - timedelta(seconds=60)).isoformat(timespec="seconds").replace("+00:00", "Z")
    controller(begun).save(state.with_wave("one", opened=opened))
    controller(begun).judge_wave({"a": done(OLD, "failed", "golden sample 3")}, {})
    controller(begun).decide_rollbacks({"a": status(NEW)})
    controller(begun).close({"a": StatusResponse(status(OLD))})

    lines = list(rollout_audit.read(rollout_folder.rollouts("farm", root)))
    seconds = {line.action: line.seconds for line in lines}
    passed = (datetime.now(UTC) - began).total_seconds() + 2  # what is recorded are whole seconds
    assert 60 <= seconds["judge"] <= 60 + passed
    assert 0 <= seconds["back"] <= passed and 0 <= seconds["close"] <= passed
    assert seconds["begin"] is seconds["open"] is seconds["deploy"] is None, "nobody measured it"
    of_a = [line.action for line in rollout_audit.select(lines, device="a")]
    assert of_a == ["open", "deploy", "judge", "back"]
    assert [line.action for line in rollout_audit.select(lines, device="b")] == []


def test_a_clock_that_was_set_back_gives_no_duration() -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    assert [rollout_audit.seconds_since(at) for at in (later, "yesterday", "", None)] == [None] * 4


def test_another_process_conducts_it(root: Path) -> None:
    begun = begin(root)
    state = controller(begun).state
    controller(begun).save(replace(state, owner=Owner("elsewhere", 1, 0.0)))

    with pytest.raises(BusyError, match="elsewhere"):
        controller(begun)


def test_devices_that_are_no_wave_are_refused(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="are not a wave"):
        controller(begin(root)).open_wave(["a", "b"])
