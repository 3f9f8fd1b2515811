"""The steps of a rollout, without devices: what agents would say goes in, what is decided and recorded comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet import prepare, record, waves
from fleet.conduct import Course
from fleet.errors import BusyError, ConfigurationError
from fleet.keys import Keys
from fleet.releases import path_of
from fleet.repository import Repository
from tests.agent_fixtures import bundle

OLD, NEW = "pump@1.0.0", "pump@1.1.0"
DIGEST = "d" * 64
Json = dict[str, Any]


def status(running: str | None = OLD, sha256: str = DIGEST, **changed: Any) -> Json:
    """What an agent says that has loaded `running`."""
    loaded = {"release": running, "target": "onnx-fp32", "sha256": sha256} if running else None
    said = {
        "time": datetime.now(UTC).isoformat(),
        "device": {"type": "pi", "architecture": "x86_64", "memory_bytes": 10**9, "targets": ["onnx-fp32"]},
        "current": running,
        "trial": None,
        "bad": {},
        "installed": [running],
        "service": {"running": True, "fault": None, "loaded": loaded},
        "disk": {"free_bytes": 10**9},
        "report": {
            "release": running,
            "trial": False,
            "restarts": 0,
            "memory_bytes": 1,
            "memory_at_start_bytes": 1,
            "inferences": 50,
            "errors": 0,
            "latency_s": {"p95": 0.001},
            "predictions": {"fine": 50},
            "feedback": {"n": 0, "wrong": 0},
        },
    }
    return {**said, **changed}


def plan(**rules: Any) -> Json:
    """Four devices on OLD that shall run NEW; one alone is the canary."""
    known = prepare.Rules.model_validate(
        {"waves": [{"name": "one", "count": 1}, {"name": "rest", "rest": True}], **rules}
    )
    return {
        "fleet": "farm",
        "commit": "0" * 40,
        "repository": "",
        "rules": known.model_dump(by_alias=True),
        "outside_window": False,
        "size": 4,
        "devices": {name: {"release": NEW, "type": "pi", "wave": 0, "groups": []} for name in "abcd"},
        "releases": {NEW: {"length": 10, "unpacked": 20, "targets": {"onnx-fp32": DIGEST}, "requirements": {}}},
        "resumes": None,
        "asked": datetime.now(UTC).isoformat(),
    }


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where rollouts are recorded; a repository with NEW lies beside it."""
    repository = Repository.create(tmp_path / "releases", Keys(tmp_path / "keys"), development=True)
    repository.add(path_of("pump", "1.1.0"), bundle(tmp_path).archive, {"version": "1.1.0"})
    repository.write("targets", "snapshot", "timestamp")
    monkeypatch.setenv("FLEET_KEYS", str(tmp_path / "keys"))
    return tmp_path / "rollouts"


def begin(root: Path, answers: Mapping[str, Json | None] | None = None, **rules: Any) -> Json:
    said = {name: status() for name in "abcd"} | dict(answers or {})
    planned = {**plan(**rules), "repository": str(root.parent / "releases")}
    told = {name: {"status": each, "reason": "" if each else "no route to host"} for name, each in said.items()}
    return prepare.preflight(planned, told, root)


def course(begun: Json) -> Course:
    return Course(Path(begun["record"]))


def done(running: str | None = NEW, outcome: str = "ok", reason: str = "", **changed: Any) -> Json:
    return {"outcome": outcome, "reason": reason, "status": status(running, **changed)}


GONE = {"outcome": "unreachable", "reason": "no route to host", "status": None}


def through_canary(begun: Json) -> None:
    assert course(begun).open(["a"])["go"]
    assert course(begun).judge({"a": done()}, {})["status"] == "pass"


def test_devices_are_in_waves_and_what_they_ran_is_kept(root: Path) -> None:
    begun = begin(root, {"d": status(NEW)})

    assert (begun["go"], begun["order"], begun["serial"]) == (True, ["a", "b", "c"], [1, 2])
    state = course(begun).state
    assert state.devices["a"].was == OLD and not state.devices["a"].touched
    assert state.devices["d"].reason == "runs it already"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (status(device={"type": "pi", "architecture": "x86_64", "memory_bytes": 1, "targets": ["x"]}), "it takes x"),
        (status(disk={"free_bytes": 39}), "of disk free"),
        (status(bad={NEW: "too slow"}), "failed here before: too slow"),
        (status(time="1970-01-01T00:00:00Z"), "its clock says 1970"),
        (status(service={"running": False, "fault": None, "loaded": None}), "no service runs"),
    ],
)
def test_a_device_that_cannot_take_it_stops_it_or_is_skipped(root: Path, said: Json, words: str) -> None:
    stopped = begin(root, {"c": said})
    assert (stopped["go"], stopped["status"]) == (False, "refused") and words in stopped["unfit"]["c"]
    assert record.rollouts("farm", root) == [], "nothing has begun"

    skipped = begin(root, {"c": said}, unfit="skip")
    assert skipped["go"] and skipped["order"] == ["a", "b", "d"]
    assert course(skipped).state.devices["c"].outcome == "unfit"


def test_out_of_reach_within_the_budget_is_left_out_and_a_canary_never(root: Path) -> None:
    assert begin(root, {"d": None})["status"] == "refused", "10% of four is none"
    assert begin(root, {"a": None}, budget={"unreachable": 4})["status"] == "refused", "the canary"
    begun = begin(root, {"d": None}, budget={"unreachable": 1})
    assert begun["order"] == ["a", "b", "c"]


def test_a_failed_canary_closes_every_later_wave(root: Path) -> None:
    begun = begin(root, budget={"failed": 4, "unreachable": 4})
    course(begun).open(["a"])

    told = course(begun).judge({"a": done(OLD, "failed", "golden sample 3")}, {})

    assert told["status"] == "fail" and "golden sample 3" in told["reason"]
    refused = course(begun).open(["b", "c", "d"])
    assert not refused["go"] and "did not pass" in refused["reason"]


def test_an_unreachable_canary_closes_every_later_wave(root: Path) -> None:
    begun = begin(root, budget={"failed": 4, "unreachable": 4})
    course(begun).open(["a"])

    assert course(begun).judge({"a": GONE}, {})["status"] == "fail"
    assert not course(begun).open(["b", "c", "d"])["go"]


@pytest.mark.parametrize(("allowed", "verdict"), [(1, "pass"), (0, "fail")])
def test_the_budget_is_the_fleets(root: Path, allowed: int, verdict: str) -> None:
    begun = begin(root, budget={"failed": allowed})
    through_canary(begun)
    course(begun).open(["b", "c", "d"])

    told = course(begun).judge({"b": done(), "c": done(), "d": done(OLD, "failed", "no space")}, {})

    assert told["status"] == verdict
    statuses = {"a": status(NEW), "b": status(NEW), "c": status(NEW), "d": status(OLD)}
    back = course(begun).settle(statuses)["back"]
    assert set(back) == ({"d"} if verdict == "pass" else {"a", "b", "c", "d"})
    assert {each["to"] for each in back.values()} == {OLD}


def test_other_bytes_than_published_count_as_failed(root: Path) -> None:
    begun = begin(root)
    course(begun).open(["a"])

    told = course(begun).judge({"a": done(sha256="e" * 64)}, {})

    assert told["status"] == "fail" and "has loaded sha256 eeeeeeeeeeee" in told["reason"]


def test_too_little_evidence_pauses(root: Path) -> None:
    begun = begin(root, judge={"min_inferences": 51})
    course(begun).open(["a"])

    assert course(begun).judge({"a": done()}, {})["status"] == "inconclusive"
    assert not course(begun).open(["b", "c", "d"])["go"]
    assert course(begun).settle({"a": status(NEW)})["back"] == {}
    assert course(begun).close({})["status"] == "paused"


def test_a_device_that_goes_back_after_its_wave_fails_the_rollout(root: Path) -> None:
    begun = begin(root)
    through_canary(begun)
    course(begun).open(["b", "c", "d"])
    course(begun).judge({name: done() for name in "bcd"}, {})

    told = course(begun).settle({**{name: status(NEW) for name in "bcd"}, "a": status(OLD, bad={NEW: "crashed"})})

    assert told["failed"] and set(told["back"]) == set("abcd")


def test_who_cannot_be_called_back_is_pending(root: Path) -> None:
    begun = begin(root)
    course(begun).open(["a"])
    course(begun).judge({"a": done(restarts=3, report={**status(NEW)["report"], "restarts": 3})}, {})
    course(begun).settle({"a": status(NEW)})

    told = course(begun).close({"a": {"status": None, "reason": "no route to host"}})

    assert told["status"] == "failed"
    assert course(begun).state.devices["a"].outcome == "pending"


def test_a_wave_waits_for_approval(root: Path) -> None:
    begun = begin(root, approve=["rest"])
    through_canary(begun)

    assert "waits for approval" in course(begun).open(["b", "c", "d"])["reason"]
    assert course(begun).close({})["status"] == "paused"
    taken = prepare.preflight(
        {**plan(), "repository": str(root.parent / "releases"), "resumes": Path(begun["record"]).name},
        {name: {"status": status(), "reason": ""} for name in "abcd"},
        root,
    )
    assert (taken["order"], taken["serial"]) == (["b", "c", "d"], [3])
    assert course(taken).open(["b", "c", "d"], "ann")["go"]
    assert course(taken).state.wave("rest").approved_by == "ann"


def test_another_process_conducts_it(root: Path) -> None:
    begun = begin(root)
    state = course(begun).state
    course(begun).save(replace(state, owner=record.Owner("elsewhere", 1, 0.0)))

    with pytest.raises(BusyError, match="elsewhere"):
        course(begun)


def test_devices_that_are_no_wave_are_refused(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="are no wave"):
        course(begin(root)).open(["a", "b"])


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"unreachable": True, "msg": "no route"}, "no route"),
        ({"rc": 127, "stdout": "", "stderr": "not found"}, "not found"),
        ({"rc": 5, "stdout": json.dumps({"error": "E", "where": "x", "found": "slow"})}, "x: slow"),
    ],
)
def test_what_ansible_registered_is_understood(result: Json, reason: str) -> None:
    assert waves.answer(result) == {"status": None, "reason": reason}
