"""Begin or resume a rollout after its devices have been queried.

This step does not change any device. It first records which pending rollbacks of earlier rollouts have been completed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.core import durable

from fleet import audit_log, errors
from fleet.devices.messages import StatusResponse
from fleet.records import rollout_audit, rollout_folder
from fleet.records.rollout_folder import Record
from fleet.records.rollout_plan import RolloutPlan
from fleet.records.state import owner
from fleet.rollout import payload, pending_rollbacks, release_history, resume
from fleet.rollout.participants import Participants
from fleet.rollout.step_results import PreflightResult


@dataclass(frozen=True)
class RemainingWaves:
    """The waves of a recorded rollout that have not passed yet, in the form that the playbook needs.

    Attributes:
        record: The folder of the record.
        order: The devices of these waves, in the order of the waves.
        serial: The number of devices in each wave, as a value for Ansible's `serial`.
        touched: Devices that could already be running the new release.
        push: The file that contains the payload.
    """

    record: str
    order: list[str]
    serial: list[int]
    touched: list[str]
    push: str


def run_preflight(
    plan: RolloutPlan, responses: Mapping[str, StatusResponse], root: Path, check: bool = False
) -> PreflightResult:
    """Decide which devices are updated in which waves, and begin or resume the rollout.

    Args:
        plan: The rollout's plan.
        responses: The devices' responses to the status query, by device name. Devices with a pending rollback have
            already tried to roll back.
        root: The folder that contains all rollout records.
        check: Whether to return the result without writing any file.

    Raises:
        RolloutError: A release failed in its last rollout.
        FleetError: The error in the plan's field `refused`.
    """
    rows = [f"warning: {each}" for each in plan.warnings]
    if abandoned := plan.gives_up:
        rows.append(f"rollout {abandoned.rollout} is abandoned: {abandoned.why}")
        if not check:
            with rollout_folder.locked(plan.fleet, root):
                resume.abandon(resume.require_unfinished(plan.fleet, abandoned.rollout, root), abandoned.why)
    returned, still_pending = _record_pending(plan, responses, root, check)
    rows += returned
    if plan.refused:
        raise errors.from_json(plan.refused.as_json(), rows)
    if not plan.again and not plan.resumes:
        history = release_history.load(plan.fleet, plan.releases, root)
        release_history.refuse_failed(history.failed, rows)
    if plan.resumes:
        return _resume(plan, plan.resumes, rows, root, check)
    participants = Participants(plan, responses, rows, still_pending)
    result = participants.result()
    if check or not result.go:
        return result
    with rollout_folder.locked(plan.fleet, root):
        rollout_folder.unfinished(plan.fleet, root)  # raises BusyError if another process controls a rollout by now

        def fill(record: Record) -> None:
            payload.prepare_payload(record, _releases(record, participants.changing), plan.repository)
            before = {name: each.status.report if each.status else None for name, each in responses.items()}
            durable.write_file(record.folder / rollout_folder.BEFORE, rollout_folder.encode(before))
            detail = f"{len(participants.changing)} devices, {len(participants.waves)} waves"
            rollout_audit.append(record, "begin", result="running", detail=detail)

        content = {**plan.as_json(), "by": audit_log.current_user()}
        record = rollout_folder.begin(plan.fleet, content, participants.state(), root, fill)
    return replace(result, **vars(_remaining_waves(record)))


def _record_pending(
    plan: RolloutPlan, responses: Mapping[str, StatusResponse], root: Path, check: bool
) -> tuple[list[str], dict[str, str]]:
    """Record which pending rollbacks have been completed. If `check` is true, nothing is recorded.

    Returns:
        Lines for the terminal, and the devices whose rollback is still pending, each with the reason.
    """
    if check:
        return [f"rolls back first: {name}: {each.left} -> {each.to}" for name, each in plan.pending.items()], {}
    with rollout_folder.locked(plan.fleet, root):
        return pending_rollbacks.record_completed(plan.fleet, root, plan.pending, responses)


def _releases(record: Record, devices: Iterable[str]) -> set[str]:
    return {record.plan.devices[name].release for name in devices}


def _remaining_waves(record: Record) -> RemainingWaves:
    state = record.load()
    waves = [wave for wave in state.waves if wave.status != "pass"]
    if any(wave.status == "fail" for wave in waves):
        waves = []  # the process was killed before the rollbacks, so only they remain
    return RemainingWaves(
        record=str(record.folder),
        order=[name for wave in waves for name in wave.devices],
        serial=[len(wave.devices) for wave in waves] or [1],
        touched=[name for name, device in state.devices.items() if device.touched],
        push=str(record.folder / rollout_folder.PUSH),
    )


def _resume(plan: RolloutPlan, rollout: str, rows: list[str], root: Path, check: bool) -> PreflightResult:
    """Resume the unfinished rollout in this process: record this process as the owner, and update the payload."""
    with rollout_folder.locked(plan.fleet, root):
        record = resume.require_unfinished(plan.fleet, rollout, root)
        state = record.load()
        remaining = _remaining_waves(record)
        if not check:
            resumed = replace(state, owner=owner(), outside_window=plan.outside_window)
            record.save(replace(resumed, status="running", reason=""))
    if not check:
        if remaining.order:  # if no wave remains, only rollbacks are left, and they need no repository
            changing = [name for wave in state.waves for name in wave.devices]
            payload.prepare_payload(record, _releases(record, changing), plan.repository)
        rollout_audit.append(record, "resume", result="running", detail=state.reason)
    reason = f"rollout {record.id} resumes: {len(remaining.order)} of {len(state.devices)} devices remain"
    return PreflightResult(go=True, status="resumed", reason=reason, unfit={}, table=[*rows, reason], **vars(remaining))
