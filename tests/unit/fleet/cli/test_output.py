"""What `fleet --json` prints of a rollout is what fleet/cli/output.schema.json says, from the plan to the trail.

`fleet rollout` and `fleet rollback` are looked at wherever support/fleet/embedded.py calls them; releases and keys in
test_publish.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fleet.cli import main, steps
from tests.support.fleet.embedded import EmbeddedFleet
from tests.support.fleet.publishing import SCHEMA
from tests.support.fleet.rollouts import status_json

pytestmark = pytest.mark.slow  # each starts the command line

NEW, OLD, FLEET = "pump@1.1.0", "pump@1.0.0", ("canary-1", "rest-1")
Json = dict[str, Any]
Say = Callable[..., Json]


@pytest.fixture(scope="module")
def made() -> Iterator[EmbeddedFleet]:
    """An inventory and a repository; no device is set up."""
    fleet = EmbeddedFleet(FLEET)
    try:
        fleet.set_policy(bake_s=0.0, waves=[{"name": "canary", "count": 1}, {"name": "rest", "rest": True}])
        fleet.publish(NEW)
        fleet.declare(NEW)
        yield fleet
    finally:
        fleet.remove()


@pytest.fixture
def say(made: EmbeddedFleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """One command's answer, which keeps to the schema."""
    monkeypatch.setenv("FLEET_KEYS", str(made.keys.folder))

    def call(*arguments: str, given: Any = None, code: int = 0) -> Json:
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(given or {})))
        assert main.main(["--json", *arguments]) == code
        said: Json = json.loads(capsys.readouterr().out)
        SCHEMA.validate(said)
        return said

    return call


def registered(said: Json | None) -> Json:
    """As Ansible registers an agent's answer."""
    return {"rc": 0, "stdout": json.dumps(said)} if said else {"unreachable": True, "msg": "no route to host"}


def test_every_step_of_a_rollout(made: EmbeddedFleet, say: Say) -> None:
    known, releases = ["--rollouts", str(made.rollouts)], ["--repository", str(made.base / "releases")]
    seen = set()

    def step(name: str, *arguments: str, given: Any = None, code: int = 0) -> Json:
        seen.add(name)
        return say("wave", name, *arguments, given=given, code=code)

    def asked(*running: str | None) -> Json:
        return {name: registered(runs(each)) for name, each in zip(FLEET, running, strict=True)}

    def runs(release: str | None) -> Json | None:
        found = status_json(release, sha256=digest)
        found["device"]["targets"] = ["onnx-fp32"]
        return found if release else None

    plan = step("plan", "-i", str(made.inventory), *known, *releases)
    digest = plan["releases"][NEW]["targets"]["onnx-fp32"]
    looked = step("preflight", *known, "--check", given={"plan": plan, "devices": asked(OLD, OLD)})
    assert looked["status"] == "ready"
    assert step("preflight", *known, given={"plan": plan, "devices": asked(None, OLD)})["status"] == "refused"
    assert step("preflight", *known, given={"plan": plan, "devices": asked(NEW, NEW)})["status"] == "unchanged"
    begun = step("preflight", *known, given={"plan": plan, "devices": asked(OLD, OLD)})
    here = ["--record", begun["record"]]

    assert step("open", *here, *releases, given={"devices": ["canary-1"]})["go"]
    switched = {"deployed": {"canary-1": {"rc": 0}}, "trouble": {"canary-1": ""}}
    assert not step("bake", *here, given={"switched": switched, "asked": {}, "looked": {}})["again"]
    answers = {"canary-1": asked(None, OLD)["canary-1"]}
    judged = step("judge", *here, given={"switched": switched, "asked": answers, "rest": []})
    assert judged["status"] == "fail"
    assert not step("open", *here, given={"devices": ["rest-1"]})["go"]
    assert step("settle", *here, given={"devices": asked(NEW, OLD)})["back"]["canary-1"]["to"] == OLD
    assert step("close", *here, given={"devices": {"canary-1": asked(None, OLD)["canary-1"]}})["status"] == "failed"

    assert step("plan", "-i", str(made.inventory), *known, *releases)["pending"]
    assert step("idle", *known, "--fleet", "farm")["fleet"] == "farm"
    assert step("recall", *known, "--fleet", "farm")["given_up"] is None
    back = {"back": {"canary-1": registered({"release": OLD})}, "asked": {"canary-1": asked(OLD, OLD)["canary-1"]}}
    assert step("recalled", *known, "--fleet", "farm", "--reason", "alarms", given=back)["failed"] == []
    step("metadata", *known, "--fleet", "farm", *releases)
    assert step("plan", "-i", str(made.inventory), *known, *releases, code=10)["error"] == "RolloutError"
    assert seen == set(steps.STEPS)

    trail = say("audit", *known, "--fleet", "farm")["lines"]
    assert [line["result"] for line in trail if line["action"] == "back"] == ["pending", "back"]


def test_what_ansible_printed(made: EmbeddedFleet, say: Say) -> None:
    known = ["--rollouts", str(made.rollouts)]
    assert say("logs", *known, code=6)["error"] == "NoReleaseError"
    file = made.rollouts / ".runs" / "1" / "artifacts" / "stdout"
    file.parent.mkdir(parents=True)
    file.write_text("PLAY [Plan]\n")

    assert say("logs", *known)["text"] == "PLAY [Plan]"


def test_other_words_are_refused() -> None:
    """The schema is no empty one."""
    for command in ("rollout", "rollback", "audit", "logs", *(f"wave {step}" for step in steps.STEPS)):
        assert not SCHEMA.is_valid({"schema_version": 1, "command": command}), command
