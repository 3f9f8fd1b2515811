"""A rollout is resumed or abandoned, and devices that have to roll back do so, whatever the inventory declares."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.cli import main
from fleet.devices.messages import StatusResponse
from fleet.errors import (
    BusyError,
    ConfigurationError,
    FleetError,
    InventoryError,
    NoReleaseError,
    PausedError,
    RolloutError,
)
from fleet.records import rollout_folder
from fleet.records.rollout_plan import PendingRollback
from fleet.records.state import Owner
from fleet.rollout import pending_rollbacks, resume
from fleet.rollout.step_results import PreflightResult
from tests.support.fleet.publishing import SCHEMA
from tests.support.fleet.rollouts import (
    NEW,
    OLD,
    controller,
    declared,
    done,
    folder,
    planned,
    status,
    then,
    unavailable,
    with_old,
)

pytestmark = pytest.mark.slow  # each starts the command line


def test_an_abandoned_rollout_has_not_failed(root: Path, paused: PreflightResult) -> None:
    plan = planned(root, declared(root, a=OLD, b=OLD, c=OLD, d=OLD), repository=with_old(root))
    assert plan.gives_up.why.startswith(f"the inventory changed: a: {OLD}, was {NEW}")
    then(root, plan, *"abcd")
    assert controller(paused).state.status == "given up"
    assert controller(paused).state.devices["a"].outcome == "ok"

    again = planned(root, declared(root))

    assert then(root, again, "b", "c", "d").go, "what passed its wave has not failed"


def test_a_rollout_begun_with_again_resumes_without_it(root: Path, killed: PreflightResult) -> None:
    controller(killed).close({"a": StatusResponse(status(OLD))})
    with pytest.raises(RolloutError, match="failed"):
        planned(root, declared(root))
    started = then(root, planned(root, declared(root), again=True), *"abcd")
    controller(started).open_wave(["a"])

    plan = planned(root, declared(root))

    assert plan.resumes == folder(started).name
    assert then(root, plan, "b", "c", "d").status == "resumed"


def test_a_limit_does_not_change_an_unfinished_rollout(root: Path, paused: PreflightResult) -> None:
    with pytest.raises(PausedError, match="--limit leaves out a, c, d of its devices"):
        planned(root, declared(root), only=["b"])

    assert planned(root, declared(root), only=list("abcd")).resumes == folder(paused).name


def test_a_rollout_begun_with_a_limit_resumes_without_it(root: Path) -> None:
    plan = planned(root, declared(root), only=["b"])
    started = then(root, plan, *"abcd")
    assert started.order == ["b"]

    assert planned(root, declared(root)).resumes == folder(started).name


def test_interrupted_rollbacks_are_made_first(root: Path, killed: PreflightResult) -> None:
    plan = planned(root, declared(root, a=OLD, b=OLD, c=OLD, d=OLD), repository=with_old(root))
    rollout = folder(killed).name
    assert plan.pending == {"a": PendingRollback(rollout=rollout, left=NEW, to=OLD)}

    result = then(root, plan, *"abcd")

    assert f"rolled back: a: runs {OLD}; was pending since rollout {rollout}" in result.table
    assert controller(killed).state.status == "failed"


@pytest.mark.parametrize("resumed", [True, False])
def test_pending_devices_roll_back_first_whatever_else_is_wrong(
    root: Path, killed: PreflightResult, resumed: bool
) -> None:
    """The controller was killed before the rollback, or the device was unreachable; now the release is withdrawn."""
    if not resumed:
        controller(killed).decide_rollbacks({"a": status(NEW)})
        controller(killed).close({"a": StatusResponse(None, "no route to host")})

    plan = planned(root, declared(root), repository=unavailable())

    assert set(plan.pending) == {"a"}
    with pytest.raises(NoReleaseError, match=f"withdrawn; .*rolled back: a: runs {OLD}"):
        then(root, plan, *"abcd")
    assert pending_rollbacks.find("farm", root, "abcd", []) == {}
    with pytest.raises(NoReleaseError):
        planned(root, declared(root), repository=unavailable())


def test_two_inventories_with_one_fleet_name_are_refused(root: Path, paused: PreflightResult) -> None:
    other = declared(root, "other")

    with pytest.raises(InventoryError) as caught:
        planned(root, other)

    assert str(other) in str(caught.value) and str(root.parent / "inventory") in str(caught.value)
    assert controller(paused).state.status == "paused"
    assert planned(root, declared(root) / "hosts.yml").resumes, "the same one, by its file"


def test_the_last_run_decides_whether_the_window_is_ignored(root: Path, paused: PreflightResult) -> None:
    then(root, planned(root, declared(root), outside_window=True), *"bcd")

    assert controller(paused).state.outside_window


def test_another_process_may_have_ended_it(root: Path, paused: PreflightResult) -> None:
    plan = planned(root, declared(root))
    with rollout_folder.locked("farm", root):
        resume.abandon(rollout_folder.find("farm", root=root), "devices are rolled back manually")

    with pytest.raises(FleetError, match="another process ended it"):
        then(root, plan, *"bcd")


def test_a_damaged_older_record_stops_no_rollout(root: Path, paused: PreflightResult) -> None:
    """It proves nothing about a release, and a warning names it."""
    old = root / "farm" / "20200101T000000Z"
    shutil.copytree(paused.record, old)
    state = (old / "state.json").read_bytes()
    for damaged in (b"\xff\xfe" + state, state.replace(b'"devices"', b'"device"'), b"", b"[" * 100_000):
        (old / "state.json").write_bytes(damaged)
        assert planned(root, declared(root)).resumes == folder(paused).name


def test_a_damaged_latest_record_is_named(root: Path, paused: PreflightResult) -> None:
    path = folder(paused) / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "devices": []}))

    with pytest.raises(ConfigurationError, match=str(path)) as caught:
        planned(root, declared(root))

    assert caught.value.exit_code == 12


def test_an_approval_names_a_wave(root: Path, paused: PreflightResult) -> None:
    with pytest.raises(
        InventoryError, match=r"--approve: wave-9, which is not a wave of (?s:.*)expected: one of: one, rest"
    ):
        planned(root, declared(root), approve=["rest", "wave-9"])

    assert planned(root, declared(root), approve=["rest"]).resumes == folder(paused).name


def test_a_limit_makes_no_device_a_canary(root: Path) -> None:
    limited = planned(root, declared(root), only=["b"])
    started = then(root, limited, "b")
    assert "wave rest: 1 device(s), needs an approval: no canary has run pump@1.1.0" in started.table
    refused = controller(started).open_wave(["b"])
    assert not refused.go and "no canary has run pump@1.1.0" in refused.reason

    sha256 = limited.releases[NEW].targets["onnx-fp32"]
    assert then(root, planned(root, declared(root), only=["b"]), "b").status == "resumed"
    assert controller(started).open_wave(["b"], approved_by="anna").go
    assert controller(started).judge_wave({"b": done(sha256=sha256)}, {}).status == "pass"
    controller(started).close({})

    assert controller(started).state.status == "passed"
    assert not (folder(started) / rollout_folder.PUSH).exists(), "what it brought is not kept"
    late = then(root, planned(root, declared(root), only=["c"]), "c")
    assert controller(late).open_wave(["c"]).go, "the release has passed a wave"


def test_a_rollout_is_abandoned_manually_even_if_its_machine_is_gone(
    root: Path, paused: PreflightResult, capsys: pytest.CaptureFixture[str]
) -> None:
    started = controller(paused).record
    moved = replace(started.load(), status="running", owner=Owner("an-old-controller", 1, 0.0))
    started.save(moved)
    with pytest.raises(BusyError, match="fleet give-up"):
        planned(root, declared(root))
    arguments = ["--json", "give-up", "-i", str(declared(root)), "--rollouts", str(root)]

    assert main.main([*arguments, "--reason", "its machine burnt"]) == 0
    SCHEMA.validate(result := json.loads(capsys.readouterr().out))

    assert (result["status"], result["reason"]) == ("given up", "abandoned: its machine burnt")
    assert started.load().devices["a"].outcome == "ok", "what passed stays"
    assert main.main([*arguments, "--reason", "again"]) == 6
    assert planned(root, declared(root)).resumes is None
