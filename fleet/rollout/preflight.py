"""The start of a rollout, after every device was asked: its record begins, or the unfinished one is taken up.

No device is changed here, and what an earlier rollout left pending is settled before anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent.core import durable

from fleet import audit_log, errors
from fleet.records import rollout_audit, rollout_folder
from fleet.records.rollout_folder import Record
from fleet.records.state import owner
from fleet.rollout import payload, pending_rollbacks, release_history, resume
from fleet.rollout.participants import Found

Json = dict[str, Any]


def run_preflight(planned: Json, answers: Mapping[str, Json], root: Path, check: bool = False) -> Json:
    """Who can take it, in which waves; begins the record unless `check`, or takes up the one that is unfinished.

    `answers`: device -> {"status": what its agent said, or None; "reason": why there is none}. Devices that an earlier
    rollout could not call back were sent back just before. Raises RolloutError.
    """
    rows = [f"warning: {each}" for each in planned.get("warnings", ())]
    if ended := planned.get("gives_up"):
        rows.append(f"rollout {ended['rollout']} is given up: {ended['why']}")
        if not check:
            with rollout_folder.locked(planned["fleet"], root):
                resume.give_up(resume.take(planned["fleet"], ended["rollout"], root), ended["why"])
    returned, still = _back(planned, answers, root, check)
    rows += returned
    if planned.get("refused"):
        raise errors.from_json(planned["refused"], rows)
    if not planned.get("again") and not planned["resumes"]:
        release_history.refuse_failed(release_history.of(planned["fleet"], planned["releases"], root).failed, rows)
    if planned["resumes"]:
        result = _resume(planned, root, check)
        return {**result, "table": [*rows, *result["table"]]}
    found = Found(planned, answers, rows, still)
    result = found.as_json()
    if check or not result["go"]:
        return result
    with rollout_folder.locked(planned["fleet"], root):
        rollout_folder.unfinished(planned["fleet"], root)  # raises where another one began meanwhile

        def fill(made: Record) -> None:
            payload.bring(made, _releases(made, found.changing), planned["repository"])
            before = {name: _report(answers, name) for name in answers}
            durable.write_file(made.folder / rollout_folder.BEFORE, rollout_folder.content(before))
            detail = f"{len(found.changing)} devices, {len(found.waves)} waves"
            rollout_audit.append(made, "begin", result="running", detail=detail)

        begun = rollout_folder.begin(
            planned["fleet"], {**planned, "by": audit_log.current_user()}, found.state(), root, fill
        )
    return {**result, **_told(begun)}


def _back(planned: Json, answers: Mapping[str, Json], root: Path, check: bool) -> tuple[list[str], dict[str, str]]:
    """Lines about the devices that an earlier rollout could not call back, and who is still not: name -> why."""
    waits = planned.get("pending", {})  # a plan of an earlier version has none
    if check:
        return [f"goes back first: {name}: {told['left']} -> {told['to']}" for name, told in waits.items()], {}
    with rollout_folder.locked(planned["fleet"], root):
        return pending_rollbacks.settle(planned["fleet"], root, waits, answers)


def _report(answers: Mapping[str, Json], name: str) -> Json | None:
    status = answers[name]["status"]
    return status.get("report") if status else None


def _releases(begun: Record, devices: Iterable[str]) -> set[str]:
    return {begun.plan["devices"][name]["release"] for name in devices}


def _told(begun: Record) -> Json:
    """What the playbook has to know of a rollout: the waves that are still to come."""
    state = begun.load()
    left = [wave for wave in state.waves if wave.status != "pass"]
    if any(wave.status == "fail" for wave in left):
        left = []  # killed before what failed had gone back: that comes next
    return {
        "record": str(begun.folder),
        "order": [name for wave in left for name in wave.devices],
        "serial": [len(wave.devices) for wave in left] or [1],
        "touched": [name for name, device in state.devices.items() if device.touched],
        "push": str(begun.folder / rollout_folder.PUSH),
    }


def _resume(planned: Json, root: Path, check: bool) -> Json:
    with rollout_folder.locked(planned["fleet"], root):
        begun = resume.take(planned["fleet"], planned["resumes"], root)
        state = begun.load()
        told = _told(begun)
        if not check:
            taken = replace(state, owner=owner(), outside_window=planned["outside_window"])
            begun.save(replace(taken, status="running", reason=""))
    if not check:
        if told["order"]:  # else what is left to do is to go back, which needs no repository
            changing = [name for wave in state.waves for name in wave.devices]
            payload.bring(begun, _releases(begun, changing), planned["repository"])
        rollout_audit.append(begun, "resume", result="running", detail=state.reason)
    rows = [f"rollout {begun.id} goes on: {len(told['order'])} of {len(state.devices)} devices are left"]
    return {"go": True, "status": "resumed", "unfit": {}, "reason": rows[0], "table": rows, **told}
