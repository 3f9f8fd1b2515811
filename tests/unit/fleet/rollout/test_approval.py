"""Approvals: a wave waits for a user who may approve it, identified by the name that the platform reports."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.cli import main
from fleet.devices.messages import StatusResponse
from fleet.records import rollout_audit, rollout_folder
from fleet.records.rollout_plan import RolloutPlan
from fleet.rollout.preflight import run_preflight
from tests.support.fleet.rollouts import begin, controller, folder, plan, status, through_canary


def test_a_wave_waits_for_approval(root: Path) -> None:
    started = begin(root, approve=["rest"])
    through_canary(started)

    assert "waits for approval" in controller(started).open_wave(["b", "c", "d"]).reason
    assert controller(started).close({}).status == "paused"
    content = {**plan(), "repository": str(root.parent / "releases"), "resumes": folder(started).name}
    resumed = run_preflight(
        RolloutPlan.model_validate(content),
        {name: StatusResponse(status()) for name in "abcd"},
        root,
    )
    assert (resumed.order, resumed.serial) == (["b", "c", "d"], [3])
    assert controller(resumed).open_wave(["b", "c", "d"], "ann").go
    assert controller(resumed).state.wave("rest").approved_by == "ann"


def test_only_approvers_approve_and_never_the_user_who_began(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_USER", "ann")
    started = begin(root, approve=["rest"], approvers=["ann", "bob"], four_eyes=True)
    through_canary(started)

    def refusal(name: str) -> str:
        state = controller(started).state
        controller(started).save(replace(state, status="running", reason=""))
        return str(controller(started).open_wave(["b", "c", "d"], name).reason)

    assert "eve is not one of rollout.approvers: ann, bob" in refusal("eve")
    assert "ann began this rollout" in refusal("ann")
    assert refusal("bob") == ""
    assert controller(started).state.wave("rest").approved_by == "bob"
    records = rollout_folder.rollouts("farm", root)
    lines = [(line.action, line.result, line.detail) for line in rollout_audit.read(records)]
    assert ("approve", "go", "wave rest: bob") in lines


def test_the_approver_is_the_user_that_the_platform_reports(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run the step as the playbook does: with sudo, the approver is the user who called it, not root."""
    started = begin(root, approve=["rest"])
    through_canary(started)
    for name in ("FLEET_USER", "GITHUB_ACTOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUDO_USER", "bob")
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"devices": ["b", "c", "d"]})))

    named = ["--record", started.record, "--repository", str(root.parent / "releases")]
    assert main.main(["--json", "wave", "open", *named, "--approve", "rest"]) == 0

    assert json.loads(capsys.readouterr().out)["go"]
    assert controller(started).state.wave("rest").approved_by == "bob"
