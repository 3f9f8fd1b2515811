"""fleet.rollout.pending_rollbacks: who could not be called back is known until it is, by what it has loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.errors import RolloutError
from fleet.records import rollout_audit, rollout_folder
from fleet.rollout import manual_rollback, pending_rollbacks
from fleet.rollout.preflight import run_preflight
from tests.support.fleet.rollouts import NEW, OLD, Json, begin, course, done, plan, status


@pytest.fixture
def failed(root: Path) -> Json:
    """A rollout of NEW that failed, and left its canary `a` on it."""
    begun = begin(root)
    course(begun).open(["a"])
    course(begun).judge({"a": done(report={**status(NEW)["report"], "restarts": 3})}, {})
    course(begun).settle({"a": status(NEW)})
    assert course(begun).close({"a": {"status": None, "reason": "no route to host"}})["status"] == "failed"
    return begun


def waiting(root: Path) -> Json:
    return {"pending": pending_rollbacks.of("farm", root, "abcd", []), "again": True}


def lines(begun: Json) -> list[tuple[str, str]]:
    return [(line["action"], line["result"]) for line in rollout_audit.of(Path(begun["record"]) / "audit.jsonl")]


def test_it_is_known_where_it_has_to_go(root: Path, failed: Json) -> None:
    rollout = Path(failed["record"]).name

    assert pending_rollbacks.of("farm", root, "abcd", []) == {"a": {"rollout": rollout, "left": NEW, "to": OLD}}
    assert pending_rollbacks.of("farm", root, "bcd", []) == {}, "not among the devices of this run"
    assert pending_rollbacks.of("farm", root.parent / "none", "abcd", []) == {}


def test_back_is_who_has_loaded_something_else(root: Path, failed: Json) -> None:
    told = begin(root, {"a": status(OLD)}, waiting(root))

    assert told["table"][0].startswith(f"back: a: runs {OLD}; was pending since rollout")
    assert told["order"] == ["a", "b", "c", "d"], "and it takes part"
    assert course(told).state.devices["a"].was == OLD
    old = rollout_folder.find("farm", Path(failed["record"]).name, root).load()
    assert old.devices["a"].outcome == "back" and old.status == "failed"
    assert lines(failed)[-1] == ("back", "back") and ("back", "pending") in lines(failed)
    assert "| back |" in (Path(failed["record"]) / "report.md").read_text()
    assert pending_rollbacks.of("farm", root, "abcd", []) == {}


@pytest.mark.parametrize(
    ("said", "words"), [(None, "no route to host"), (status(NEW), f"runs {NEW}"), (status(None), "runs nothing")]
)
def test_who_is_not_back_takes_no_part(root: Path, failed: Json, said: Json | None, words: str) -> None:
    """Else the release that failed would be what it goes back to."""
    told = begin(root, {"a": said}, waiting(root), unfit="skip", budget={"unreachable": 4})

    assert (
        told["table"][0] == f"still pending: a: not back at {OLD} since rollout {Path(failed['record']).name}: {words}"
    )
    assert "a" not in told["order"]
    assert "a" in pending_rollbacks.of("farm", root, "abcd", [])


def test_the_release_that_failed_is_refused_after_they_are_back(root: Path, failed: Json) -> None:
    with pytest.raises(RolloutError, match=f"failed in rollout .* back: a: runs {OLD}"):
        begin(root, {"a": status(OLD)}, {**waiting(root), "again": False})

    assert pending_rollbacks.of("farm", root, "abcd", []) == {}


def test_a_look_says_who_would_go_back_and_writes_nothing(root: Path, failed: Json) -> None:
    before = (Path(failed["record"]) / "state.json").read_bytes()
    planned = plan() | {"repository": str(root.parent / "releases"), **waiting(root)}
    answers = {name: {"status": status(NEW if name == "a" else OLD), "reason": ""} for name in "abcd"}

    told = run_preflight(planned, answers, root, check=True)

    assert told["table"][0] == f"goes back first: a: {NEW} -> {OLD}"
    assert (Path(failed["record"]) / "state.json").read_bytes() == before


def test_who_is_called_back_by_hand_is_pending_no_more(root: Path, failed: Json) -> None:
    told = {"a": {"said": {"release": OLD}, "status": status(OLD), "reason": ""}}

    assert manual_rollback.end("farm", root, told, "by hand")["failed"] == []

    assert pending_rollbacks.of("farm", root, "abcd", []) == {}
