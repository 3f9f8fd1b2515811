"""A wave that somebody has to approve: it waits, and only who may approves it, by the name that the platform says."""

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
    begun = begin(root, approve=["rest"])
    through_canary(begun)

    assert "waits for approval" in controller(begun).open_wave(["b", "c", "d"]).reason
    assert controller(begun).close({}).status == "paused"
    content = {**plan(), "repository": str(root.parent / "releases"), "resumes": folder(begun).name}
    taken = run_preflight(
        RolloutPlan.model_validate(content),
        {name: StatusResponse(status()) for name in "abcd"},
        root,
    )
    assert (taken.order, taken.serial) == (["b", "c", "d"], [3])
    assert controller(taken).open_wave(["b", "c", "d"], "ann").go
    assert controller(taken).state.wave("rest").approved_by == "ann"


def test_only_approvers_approve_and_not_whoever_began(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_USER", "ann")
    begun = begin(root, approve=["rest"], approvers=["ann", "bob"], four_eyes=True)
    through_canary(begun)

    def refusal(name: str) -> str:
        state = controller(begun).state
        controller(begun).save(replace(state, status="running", reason=""))
        return str(controller(begun).open_wave(["b", "c", "d"], name).reason)

    assert "eve is not one of rollout.approvers: ann, bob" in refusal("eve")
    assert "ann began this rollout" in refusal("ann")
    assert refusal("bob") == ""
    assert controller(begun).state.wave("rest").approved_by == "bob"
    records = rollout_folder.rollouts("farm", root)
    lines = [(line.action, line.result, line.detail) for line in rollout_audit.read(records)]
    assert ("approve", "go", "wave rest: bob") in lines


def test_who_approves_is_who_the_platform_says(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The step itself, as the playbook calls it: sudo does not make everybody root."""
    begun = begin(root, approve=["rest"])
    through_canary(begun)
    for name in ("FLEET_USER", "GITHUB_ACTOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUDO_USER", "bob")
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"devices": ["b", "c", "d"]})))

    named = ["--record", begun.record, "--repository", str(root.parent / "releases")]
    assert main.main(["--json", "wave", "open", *named, "--approve", "rest"]) == 0

    assert json.loads(capsys.readouterr().out)["go"]
    assert controller(begun).state.wave("rest").approved_by == "bob"
