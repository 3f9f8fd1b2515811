"""Rollouts without devices: what agents would say, and a repository that holds what is rolled out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import NoReleaseError
from fleet.inventory.rollout_policy import RolloutPolicy
from fleet.releases.catalog import target_path
from fleet.releases.keys import Keys
from fleet.releases.repository import Repository
from fleet.rollout.controller import Course
from fleet.rollout.plan import plan_rollout
from fleet.rollout.preflight import run_preflight
from tests.support.agent.bundles import bundle
from tests.support.fleet.inventories import write

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
    known = RolloutPolicy.model_validate(
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
        "others": {},
        "proven": [],
        "releases": {NEW: {"length": 10, "unpacked": 20, "targets": {"onnx-fp32": DIGEST}, "requirements": {}}},
        "resumes": None,
        "pending": {},
        "again": False,
        "asked": datetime.now(UTC).isoformat(),
    }


def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where rollouts are recorded; a repository with NEW lies beside it."""
    repository = Repository.create(tmp_path / "releases", Keys(tmp_path / "keys"), development=True)
    repository.add(target_path("pump", "1.1.0"), bundle(tmp_path).archive, {"version": "1.1.0"})
    repository.write("targets", "snapshot", "timestamp")
    monkeypatch.setenv("FLEET_KEYS", str(tmp_path / "keys"))
    return tmp_path / "rollouts"


def begin(
    root: Path, answers: Mapping[str, Json | None] | None = None, changed: Json | None = None, **rules: Any
) -> Json:
    """Preflight of a `plan` with these rules, in which devices that are not named run OLD; `changed`: of the plan."""
    said = {name: status() for name in "abcd"} | dict(answers or {})
    planned = {**plan(**rules), "repository": str(root.parent / "releases"), **(changed or {})}
    told = {name: {"status": each, "reason": "" if each else "no route to host"} for name, each in said.items()}
    return run_preflight(planned, told, root)


def course(begun: Json) -> Course:
    return Course(Path(begun["record"]))


def done(running: str | None = NEW, outcome: str = "ok", reason: str = "", **changed: Any) -> Json:
    return {"outcome": outcome, "reason": reason, "status": status(running, **changed)}


GONE = {"outcome": "unreachable", "reason": "no route to host", "status": None}


def through_canary(begun: Json) -> None:
    assert course(begun).open(["a"])["go"]
    assert course(begun).judge({"a": done()}, {})["status"] == "pass"


def declared(root: Path, folder: str = "inventory", /, **releases: str) -> Path:
    """An inventory of the devices a to d; those that are not named run NEW."""
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
    return write(root.parent / folder, {"all_of_them": hosts}, group_vars__all=everybody)


@contextlib.contextmanager
def releases(root: Path) -> Iterator[Repository]:
    yield Repository(root.parent / "releases", Keys(root.parent / "keys"))


@contextlib.contextmanager
def with_old(root: Path) -> Iterator[Repository]:
    """OLD is published too: the same bytes, which nobody is brought here."""
    with releases(root) as there:
        there.targets.targets[target_path("pump", "1.0.0")] = there.targets.targets[target_path("pump", "1.1.0")]
        yield there


@contextlib.contextmanager
def gone() -> Iterator[Repository]:
    raise NoReleaseError("releases", "withdrawn", "", "")
    yield


def planned(root: Path, path: Path, **changed: Any) -> Json:
    return plan_rollout(path, changed.pop("repository", releases(root)), root, **changed)


def then(root: Path, plan: Json, *old: str) -> Json:
    """Preflight; these devices run OLD, the others NEW."""
    sha256 = next((offer["targets"]["onnx-fp32"] for offer in plan["releases"].values()), DIGEST)
    answers = {name: {"status": status(OLD if name in old else NEW, sha256), "reason": ""} for name in "abcd"}
    return run_preflight(plan, answers, root)
