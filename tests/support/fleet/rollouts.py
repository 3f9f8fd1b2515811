"""Rollouts without devices: responses that agents would give, and a repository of the releases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet.devices.messages import AgentStatus, StatusResponse
from fleet.errors import NoReleaseError
from fleet.inventory.rollout_policy import RolloutPolicy
from fleet.records.rollout_plan import RolloutPlan
from fleet.releases.catalog import target_path
from fleet.releases.keys import Keys
from fleet.releases.repository import Repository
from fleet.rollout.controller import DeployOutcome, RolloutController
from fleet.rollout.plan import PlanOptions, plan_rollout
from fleet.rollout.preflight import run_preflight
from fleet.rollout.step_results import PreflightResult
from fleet.rollout.verdict_checks import SwitchOutcome
from tests.support.agent.bundles import bundle
from tests.support.fleet.inventories import write

OLD, NEW = "pump@1.0.0", "pump@1.1.0"
DIGEST = "d" * 64
Json = dict[str, Any]


def status(running: str | None = OLD, sha256: str = DIGEST, **changed: Any) -> AgentStatus:
    """Return the status of an agent that has loaded `running`."""
    return AgentStatus.model_validate(status_json(running, sha256, **changed))


def status_json(running: str | None = OLD, sha256: str = DIGEST, **changed: Any) -> Json:
    """Return the status as the agent prints it."""
    loaded = {"release": running, "target": "onnx-fp32", "sha256": sha256} if running else None
    printed = {
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
    return {**printed, **changed}


def plan(**rules: Any) -> Json:
    """Return the plan of four devices on OLD that are to run NEW; the first one is the canary."""
    policy = RolloutPolicy.model_validate(
        {"waves": [{"name": "one", "count": 1}, {"name": "rest", "rest": True}], **rules}
    )
    return {
        "fleet": "farm",
        "commit": "0" * 40,
        "repository": "",
        "rules": policy.model_dump(by_alias=True),
        "outside_window": False,
        "size": 4,
        "devices": {name: {"release": NEW, "type": "pi", "wave": 0, "groups": []} for name in "abcd"},
        "others": {},
        "proven": [],
        "releases": {NEW: {"length": 10, "unpacked": 20, "targets": {"onnx-fp32": DIGEST}, "requirements": {}}},
        "resumes": None,
        "pending": {},
        "again": False,
        "asked": datetime.now(UTC).isoformat(),
    }


def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of all records; a repository with NEW is beside it."""
    repository = Repository.create(tmp_path / "releases", Keys(tmp_path / "keys"), development=True)
    repository.add(target_path("pump", "1.1.0"), bundle(tmp_path).archive, {"version": "1.1.0"})
    repository.write("targets", "snapshot", "timestamp")
    monkeypatch.setenv("FLEET_KEYS", str(tmp_path / "keys"))
    return tmp_path / "rollouts"


def begin(
    root: Path, statuses: Mapping[str, AgentStatus | None] | None = None, changed: Json | None = None, **rules: Any
) -> PreflightResult:
    """Run the preflight of a `plan` with these rules. Devices that are not named run OLD; `changed`: of the plan."""
    every = {name: status() for name in "abcd"} | dict(statuses or {})
    content = {**plan(**rules), "repository": str(root.parent / "releases"), **(changed or {})}
    responses = {name: StatusResponse(each, "" if each else "no route to host") for name, each in every.items()}
    return run_preflight(RolloutPlan.model_validate(content), responses, root)


def controller(started: PreflightResult) -> RolloutController:
    return RolloutController(folder(started))


def folder(started: PreflightResult) -> Path:
    """Return the folder of a rollout's record."""
    assert started.record
    return Path(started.record)


def done(running: str | None = NEW, outcome: SwitchOutcome = "ok", reason: str = "", **changed: Any) -> DeployOutcome:
    return DeployOutcome(outcome, reason, status(running, **changed))


UNREACHABLE = DeployOutcome("unreachable", "no route to host", None)


def through_canary(started: PreflightResult) -> None:
    assert controller(started).open_wave(["a"]).go
    assert controller(started).judge_wave({"a": done()}, {}).status == "pass"


def declared(root: Path, folder_name: str = "inventory", /, **releases: str) -> Path:
    """Write an inventory of the devices a to d; those that are not named are to run NEW."""
    hosts = {
        name: {"ansible_host": f"192.0.2.{number}", "release": releases.get(name, NEW)}
        for number, name in enumerate("abcd", 1)
    }
    everybody = {
        "fleet": {"name": "farm", "development": True},
        "device_type": "pi",
        "wave": 0,
        "rollout": {"waves": [{"name": "one", "count": 1}, {"name": "rest", "rest": True}]},
    }
    return write(root.parent / folder_name, {"all_of_them": hosts}, group_vars__all=everybody)


@contextlib.contextmanager
def releases(root: Path) -> Iterator[Repository]:
    yield Repository(root.parent / "releases", Keys(root.parent / "keys"))


@contextlib.contextmanager
def with_old(root: Path) -> Iterator[Repository]:
    """Open the repository with OLD published too: the same bytes, which are not delivered here."""
    with releases(root) as there:
        there.targets.targets[target_path("pump", "1.0.0")] = there.targets.targets[target_path("pump", "1.1.0")]
        yield there


@contextlib.contextmanager
def unavailable() -> Iterator[Repository]:
    raise NoReleaseError("releases", "withdrawn", "", "")
    yield


def planned(root: Path, path: Path, **changed: Any) -> RolloutPlan:
    repository = changed.pop("repository", None) or releases(root)
    return plan_rollout(path, repository, root, PlanOptions(**changed))


def then(root: Path, plan: RolloutPlan | Json, *old: str) -> PreflightResult:
    """Run the preflight of a plan, or of its JSON; these devices run OLD, the others NEW."""
    plan = plan if isinstance(plan, RolloutPlan) else RolloutPlan.model_validate(plan)
    sha256 = next((release.targets["onnx-fp32"] for release in plan.releases.values()), DIGEST)
    responses = {name: StatusResponse(status(OLD if name in old else NEW, sha256)) for name in "abcd"}
    return run_preflight(plan, responses, root)
