"""fleet.rollout.pending_rollbacks: who could not be called back is known until it is, by what it has loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.devices.messages import AgentStatus, CommandResult, StatusResponse
from fleet.errors import RolloutError
from fleet.records import rollout_audit, rollout_folder
from fleet.records.rollout_plan import PendingRollback, RolloutPlan
from fleet.rollout import pending_rollbacks
from fleet.rollout.manual_rollback import ManualRollback, finish_manual_rollback
from fleet.rollout.preflight import run_preflight
from fleet.rollout.step_results import PreflightResult
from tests.support.fleet.rollouts import NEW, OLD, Json, begin, controller, done, folder, plan, status, status_json


@pytest.fixture
def failed(root: Path) -> PreflightResult:
    """A rollout of NEW that failed, and left its canary `a` on it."""
    begun = begin(root)
    controller(begun).open_wave(["a"])
    controller(begun).judge_wave({"a": done(report={**status_json(NEW)["report"], "restarts": 3})}, {})
    controller(begun).decide_rollbacks({"a": status(NEW)})
    assert controller(begun).close({"a": StatusResponse(None, "no route to host")}).status == "failed"
    return begun


def waiting(root: Path) -> Json:
    pending = pending_rollbacks.find("farm", root, "abcd", [])
    return {"pending": {name: rollback.as_json() for name, rollback in pending.items()}, "again": True}


def lines(begun: PreflightResult) -> list[tuple[str, str]]:
    return [(line.action, line.result) for line in rollout_audit.read_file(folder(begun) / "audit.jsonl")]


def test_it_is_known_where_it_has_to_go(root: Path, failed: PreflightResult) -> None:
    rollout = folder(failed).name

    assert pending_rollbacks.find("farm", root, "abcd", []) == {"a": PendingRollback(rollout=rollout, left=NEW, to=OLD)}
    assert pending_rollbacks.find("farm", root, "bcd", []) == {}, "not among the devices of this run"
    assert pending_rollbacks.find("farm", root.parent / "none", "abcd", []) == {}


def test_back_is_who_has_loaded_something_else(root: Path, failed: PreflightResult) -> None:
    told = begin(root, {"a": status(OLD)}, waiting(root))

    assert told.table[0].startswith(f"rolled back: a: runs {OLD}; was pending since rollout")
    assert told.order == ["a", "b", "c", "d"], "and it takes part"
    assert controller(told).state.devices["a"].was == OLD
    old = rollout_folder.find("farm", folder(failed).name, root).load()
    assert old.devices["a"].outcome == "back" and old.status == "failed"
    assert lines(failed)[-1] == ("back", "back") and ("back", "pending") in lines(failed)
    assert "| back |" in (folder(failed) / "report.md").read_text()
    assert pending_rollbacks.find("farm", root, "abcd", []) == {}


@pytest.mark.parametrize(
    ("said", "words"), [(None, "no route to host"), (status(NEW), f"runs {NEW}"), (status(None), "runs nothing")]
)
def test_who_is_not_back_takes_no_part(
    root: Path, failed: PreflightResult, said: AgentStatus | None, words: str
) -> None:
    """Else the release that failed would be what it goes back to."""
    told = begin(root, {"a": said}, waiting(root), unfit="skip", budget={"unreachable": 4})

    assert told.table[0] == f"still pending: a: not back at {OLD} since rollout {folder(failed).name}: {words}"
    assert "a" not in told.order
    assert "a" in pending_rollbacks.find("farm", root, "abcd", [])


def test_the_release_that_failed_is_refused_after_they_are_back(root: Path, failed: PreflightResult) -> None:
    with pytest.raises(RolloutError, match=f"failed in rollout .*rolled back: a: runs {OLD}"):
        begin(root, {"a": status(OLD)}, {**waiting(root), "again": False})

    assert pending_rollbacks.find("farm", root, "abcd", []) == {}


def test_a_look_says_who_would_go_back_and_writes_nothing(root: Path, failed: PreflightResult) -> None:
    before = (folder(failed) / "state.json").read_bytes()
    planned = plan() | {"repository": str(root.parent / "releases"), **waiting(root)}
    answers = {name: StatusResponse(status(NEW if name == "a" else OLD)) for name in "abcd"}

    told = run_preflight(RolloutPlan.model_validate(planned), answers, root, check=True)

    assert told.table[0] == f"rolls back first: a: {NEW} -> {OLD}"
    assert (folder(failed) / "state.json").read_bytes() == before


def test_who_is_called_back_by_hand_is_pending_no_more(root: Path, failed: PreflightResult) -> None:
    told = {"a": ManualRollback(CommandResult(release=OLD), StatusResponse(status(OLD)))}

    assert finish_manual_rollback("farm", root, told, "by hand").failed == []

    assert pending_rollbacks.find("farm", root, "abcd", []) == {}
