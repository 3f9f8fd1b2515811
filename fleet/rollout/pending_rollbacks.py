"""Find and record pending rollbacks: rollbacks that a device could not perform when its rollout failed.

The fleet's next rollout rolls these devices back first. Pending rollbacks are found in the records of all rollouts,
regardless of their age, and are not stored anywhere else. A device is recorded as rolled back as soon as it has loaded
any release other than the failed release.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from fleet.devices import eligibility
from fleet.devices.messages import NOT_QUERIED, StatusResponse
from fleet.errors import ConfigurationError
from fleet.records import report, rollout_audit, rollout_folder
from fleet.records.rollout_plan import PendingRollback

MARK = b'"outcome": "pending"'  # the text that Record.save writes; a record without this text need not be parsed


def find(fleet: str, root: Path, devices: Collection[str], warnings: list[str]) -> dict[str, PendingRollback]:
    """Return the pending rollbacks of these devices, by device name.

    Args:
        fleet: The fleet's name.
        root: The folder that contains all rollout records.
        devices: Names of the devices.
        warnings: A list to which a line is added for each record that cannot be read.
    """
    pending: dict[str, PendingRollback] = {}
    for record in rollout_folder.rollouts(fleet, root):
        try:
            states = record.load().devices if MARK in (record.folder / "state.json").read_bytes() else {}
        except (OSError, ConfigurationError) as error:
            text = " ".join(str(error).split())
            warnings.append(f"the pending rollbacks of rollout {record.id} are not known: {text}")
            continue
        for name, device in states.items():
            if device.outcome == "pending" and name in devices:
                pending[name] = PendingRollback(rollout=record.id, left=device.release, to=device.was)
    return pending


def record_completed(
    fleet: str, root: Path, pending: Mapping[str, PendingRollback], responses: Mapping[str, StatusResponse]
) -> tuple[list[str], dict[str, str]]:
    """Record which devices with a pending rollback have rolled back. The caller must hold the fleet's lock.

    Args:
        fleet: The fleet's name.
        root: The folder that contains all rollout records.
        pending: The pending rollbacks, by device name.
        responses: The devices' responses to the status query after they tried to roll back, by device name.

    Returns:
        Lines for the terminal, and the devices whose rollback is still pending, each with the reason.
    """
    rows, still_pending = [], {}
    for rollout in sorted({rollback.rollout for rollback in pending.values()}):
        record = rollout_folder.find(fleet, rollout, root)
        state = record.load()
        for name, rollback in pending.items():
            if rollback.rollout != rollout or state.devices[name].outcome != "pending":
                continue
            response = responses.get(name, NOT_QUERIED)
            running = eligibility.loaded_release(response.status)
            if running in (None, rollback.left):
                reason = response.reason or f"runs {running or 'nothing'}"
                still_pending[name] = reason
                rows.append(
                    f"still pending: {name}: not rolled back to {rollback.to} since rollout {rollout}: {reason}"
                )
                continue
            explanation = f"{state.devices[name].reason}; later: runs {running}"
            state = state.with_device(name, outcome="back", reason=explanation)
            detail = f"runs {running}; was pending"
            rollout_audit.append(record, "back", device=name, release=rollback.left, result="back", detail=detail)
            rows.append(f"rolled back: {name}: runs {running}; was pending since rollout {rollout}")
        if state != record.load():
            record.save(state)
            report.write(record, state)
    return rows, still_pending
