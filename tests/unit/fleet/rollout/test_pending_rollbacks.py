"""fleet.rollout.pending_rollbacks: a rollback stays pending until the device has loaded another release."""

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
    """Return a failed rollout of NEW whose canary `a` still runs it."""
    started = begin(root)
    controller(started).open_wave(["a"])
    controller(started).judge_wave({"a": done(report={**status_json(NEW)["report"], "restarts": 3})}, {})
    controller(started).decide_rollbacks({"a": status(NEW)})
    assert controller(started).close({"a": StatusResponse(None, "no route to host")}).status == "failed"
    return started


def with_pending(root: Path) -> Json:
    pending = pending_rollbacks.find("farm", root, "abcd", [])
    return {"pending": {name: rollback.as_json() for name, rollback in pending.items()}, "again": True}


def lines(started: PreflightResult) -> list[tuple[str, str]]:
    return [(line.action, line.result) for line in rollout_audit.read_file(folder(started) / "audit.jsonl")]


def test_a_pending_rollback_names_both_releases(root: Path, failed: PreflightResult) -> None:
    rollout = folder(failed).name

    assert pending_rollbacks.find("farm", root, "abcd", []) == {"a": PendingRollback(rollout=rollout, left=NEW, to=OLD)}
    assert pending_rollbacks.find("farm", root, "bcd", []) == {}, "not among the devices of this run"
    assert pending_rollbacks.find("farm", root.parent / "none", "abcd", []) == {}


def test_a_device_that_loaded_another_release_has_rolled_back(root: Path, failed: PreflightResult) -> None:
    result = begin(root, {"a": status(OLD)}, with_pending(root))

    assert result.table[0].startswith(f"rolled back: a: runs {OLD}; was pending since rollout")
    assert result.order == ["a", "b", "c", "d"], "and it takes part"
    assert controller(result).state.devices["a"].was == OLD
    state = rollout_folder.find("farm", folder(failed).name, root).load()
    assert state.devices["a"].outcome == "back" and state.status == "failed"
    assert lines(failed)[-1] == ("back", "back") and ("back", "pending") in lines(failed)
    assert "| back |" in (folder(failed) / "report.md").read_text()
    assert pending_rollbacks.find("farm", root, "abcd", []) == {}


@pytest.mark.parametrize(
    ("canary_status", "words"),
    [(None, "no route to host"), (status(NEW), f"runs {NEW}"), (status(None), "runs nothing")],
)
def test_a_device_that_is_still_pending_takes_no_part(
    root: Path, failed: PreflightResult, canary_status: AgentStatus | None, words: str
) -> None:
    """Otherwise it would later roll back to the release that failed."""
    result = begin(root, {"a": canary_status}, with_pending(root), unfit="skip", budget={"unreachable": 4})

    assert result.table[0] == f"still pending: a: not rolled back to {OLD} since rollout {folder(failed).name}: {words}"
    assert "a" not in result.order
    assert "a" in pending_rollbacks.find("farm", root, "abcd", [])


def test_the_failed_release_is_refused_after_the_pending_rollbacks(root: Path, failed: PreflightResult) -> None:
    with pytest.raises(RolloutError, match=f"failed in rollout .*rolled back: a: runs {OLD}"):
        begin(root, {"a": status(OLD)}, {**with_pending(root), "again": False})

    assert pending_rollbacks.find("farm", root, "abcd", []) == {}


def test_check_reports_pending_rollbacks_and_writes_nothing(root: Path, failed: PreflightResult) -> None:
    before = (folder(failed) / "state.json").read_bytes()
    planned = plan() | {"repository": str(root.parent / "releases"), **with_pending(root)}
    answers = {name: StatusResponse(status(NEW if name == "a" else OLD)) for name in "abcd"}

    result = run_preflight(RolloutPlan.model_validate(planned), answers, root, check=True)

    assert result.table[0] == f"rolls back first: a: {NEW} -> {OLD}"
    assert (folder(failed) / "state.json").read_bytes() == before


def test_a_manual_rollback_completes_a_pending_one(root: Path, failed: PreflightResult) -> None:
    result = {"a": ManualRollback(CommandResult(release=OLD), StatusResponse(status(OLD)))}

    assert finish_manual_rollback("farm", root, result, "by hand").failed == []

    assert pending_rollbacks.find("farm", root, "abcd", []) == {}
