"""A rollout goes on, or is given up; and what has to go back does, whatever is declared meanwhile."""

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
    gone,
    planned,
    status,
    then,
    with_old,
)

pytestmark = pytest.mark.slow  # each starts the command line


def test_given_up_is_not_failed(root: Path, paused: PreflightResult) -> None:
    plan = planned(root, declared(root, a=OLD, b=OLD, c=OLD, d=OLD), repository=with_old(root))
    assert plan.gives_up.why.startswith(f"the inventory changed: a: {OLD}, was {NEW}")
    then(root, plan, *"abcd")
    assert controller(paused).state.status == "given up"
    assert controller(paused).state.devices["a"].outcome == "ok"

    again = planned(root, declared(root))

    assert then(root, again, "b", "c", "d").go, "what passed its wave has not failed"


def test_tried_again_it_goes_on_without_being_told_again(root: Path, killed: PreflightResult) -> None:
    controller(killed).close({"a": StatusResponse(status(OLD))})
    with pytest.raises(RolloutError, match="failed"):
        planned(root, declared(root))
    begun = then(root, planned(root, declared(root), again=True), *"abcd")
    controller(begun).open_wave(["a"])

    plan = planned(root, declared(root))

    assert plan.resumes == folder(begun).name
    assert then(root, plan, "b", "c", "d").status == "resumed"


def test_a_limit_is_no_change(root: Path, paused: PreflightResult) -> None:
    with pytest.raises(PausedError, match="a, c, d of it would be left out"):
        planned(root, declared(root), only=["b"])

    assert planned(root, declared(root), only=list("abcd")).resumes == folder(paused).name


def test_what_began_with_a_limit_goes_on_without_one(root: Path) -> None:
    plan = planned(root, declared(root), only=["b"])
    begun = then(root, plan, *"abcd")
    assert begun.order == ["b"]

    assert planned(root, declared(root)).resumes == folder(begun).name


def test_what_was_killed_before_it_went_back_goes_back_first(root: Path, killed: PreflightResult) -> None:
    plan = planned(root, declared(root, a=OLD, b=OLD, c=OLD, d=OLD), repository=with_old(root))
    rollout = folder(killed).name
    assert plan.pending == {"a": PendingRollback(rollout=rollout, left=NEW, to=OLD)}

    told = then(root, plan, *"abcd")

    assert f"rolled back: a: runs {OLD}; was pending since rollout {rollout}" in told.table
    assert controller(killed).state.status == "failed"


@pytest.mark.parametrize("resumed", [True, False])
def test_whatever_is_wrong_pending_devices_go_back_first(root: Path, killed: PreflightResult, resumed: bool) -> None:
    """Killed before they went back, or out of reach then; and now the release is withdrawn."""
    if not resumed:
        controller(killed).decide_rollbacks({"a": status(NEW)})
        controller(killed).close({"a": StatusResponse(None, "no route to host")})

    plan = planned(root, declared(root), repository=gone())

    assert set(plan.pending) == {"a"}
    with pytest.raises(NoReleaseError, match=f"withdrawn; .*rolled back: a: runs {OLD}"):
        then(root, plan, *"abcd")
    assert pending_rollbacks.find("farm", root, "abcd", []) == {}
    with pytest.raises(NoReleaseError):
        planned(root, declared(root), repository=gone())


def test_two_inventories_of_one_name_are_told_apart(root: Path, paused: PreflightResult) -> None:
    other = declared(root, "other")

    with pytest.raises(InventoryError) as caught:
        planned(root, other)

    assert str(other) in str(caught.value) and str(root.parent / "inventory") in str(caught.value)
    assert controller(paused).state.status == "paused"
    assert planned(root, declared(root) / "hosts.yml").resumes, "the same one, by its file"


def test_outside_the_window_is_what_the_last_run_says(root: Path, paused: PreflightResult) -> None:
    then(root, planned(root, declared(root), outside_window=True), *"bcd")

    assert controller(paused).state.outside_window


def test_another_process_may_have_ended_it(root: Path, paused: PreflightResult) -> None:
    plan = planned(root, declared(root))
    with rollout_folder.locked("farm", root):
        resume.abandon(rollout_folder.find("farm", root=root), "devices are rolled back manually")

    with pytest.raises(FleetError, match="another process ended it"):
        then(root, plan, *"bcd")


def test_an_older_record_that_is_damaged_stops_nothing(root: Path, paused: PreflightResult) -> None:
    """It proves nothing, and what is not known of it is said."""
    old = root / "farm" / "20200101T000000Z"
    shutil.copytree(paused.record, old)
    state = (old / "state.json").read_bytes()
    for damaged in (b"\xff\xfe" + state, state.replace(b'"devices"', b'"device"'), b"", b"[" * 100_000):
        (old / "state.json").write_bytes(damaged)
        assert planned(root, declared(root)).resumes == folder(paused).name


def test_the_latest_record_is_named_where_it_is_damaged(root: Path, paused: PreflightResult) -> None:
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


def test_a_limit_makes_nobody_a_canary(root: Path) -> None:
    limited = planned(root, declared(root), only=["b"])
    begun = then(root, limited, "b")
    assert "wave rest: 1 device(s), asks for approval: no canary has run pump@1.1.0" in begun.table
    refused = controller(begun).open_wave(["b"])
    assert not refused.go and "no canary has run pump@1.1.0" in refused.reason

    sha256 = limited.releases[NEW].targets["onnx-fp32"]
    assert then(root, planned(root, declared(root), only=["b"]), "b").status == "resumed"
    assert controller(begun).open_wave(["b"], approved_by="anna").go
    assert controller(begun).judge_wave({"b": done(sha256=sha256)}, {}).status == "pass"
    controller(begun).close({})

    assert controller(begun).state.status == "passed"
    assert not (folder(begun) / rollout_folder.PUSH).exists(), "what it brought is not kept"
    late = then(root, planned(root, declared(root), only=["c"]), "c")
    assert controller(late).open_wave(["c"]).go, "the release has passed a wave"


def test_it_is_given_up_by_hand_also_where_its_machine_is_gone(
    root: Path, paused: PreflightResult, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = controller(paused).record
    gone = replace(begun.load(), status="running", owner=Owner("an-old-controller", 1, 0.0))
    begun.save(gone)
    with pytest.raises(BusyError, match="fleet give-up"):
        planned(root, declared(root))
    known = ["--json", "give-up", "-i", str(declared(root)), "--rollouts", str(root)]

    assert main.main([*known, "--reason", "its machine burnt"]) == 0
    SCHEMA.validate(told := json.loads(capsys.readouterr().out))

    assert (told["status"], told["reason"]) == ("given up", "abandoned: its machine burnt")
    assert begun.load().devices["a"].outcome == "ok", "what passed stays"
    assert main.main([*known, "--reason", "again"]) == 6
    assert planned(root, declared(root)).resumes is None
