"""Resume or abandon the unfinished rollout of a fleet.

A rollout is abandoned if its inventory has changed since the rollout began. In this case, the rollout's releases do not
count as failed. If a wave had failed and the rollout's process was killed before the rollbacks, the rollback of every
device that the rollout may have changed becomes pending. The next run performs these rollbacks first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from fleet import audit_log
from fleet.errors import BusyError, InventoryError, NoReleaseError, PausedError
from fleet.inventory.model import Device, Fleet
from fleet.records import report, rollout_audit, rollout_folder
from fleet.records.rollout_folder import Record
from fleet.records.rollout_plan import PendingRollback
from fleet.records.state import RolloutState, Status


def unfinished_rollout(fleet: str, path: Path, root: Path) -> Record | None:
    """Return the unfinished rollout of an inventory, or None. The caller must hold the fleet's lock.

    Args:
        fleet: The fleet's name.
        path: The inventory's path.
        root: The folder that contains all rollout records.

    Raises:
        BusyError: Another process controls the unfinished rollout.
        InventoryError: The records belong to a different inventory.
        ConfigurationError: The record of the unfinished rollout cannot be read.
    """
    if records := rollout_folder.rollouts(fleet, root):
        recorded = Path(records[-1].plan.inventory or path)
        if recorded.exists() and _folder(recorded) != _folder(path):
            raise InventoryError(
                f"{path}: fleet.name",
                f"{fleet}: the inventory {recorded} has the same name, and its rollouts are recorded in {root / fleet}",
                "a different fleet name in each inventory",
                "rename one of the fleets, or keep its records in another folder: --rollouts, -e rollout_records=",
            )
    record = rollout_folder.unfinished(fleet, root)
    if record:
        record.require_matching_plan()
    return record


def _folder(path: Path) -> Path:
    """Return the folder of an inventory. `path` may be the folder or the inventory file in it."""
    real = path.resolve()
    return real.parent if real.is_file() else real


def inventory_changes(record: Record, devices: Sequence[Device], only: Collection[str] | None = None) -> str:
    """Return how the inventory has changed since a rollout began, or an empty string if the rollout can resume.

    Args:
        record: The rollout's record.
        devices: The devices that the inventory declares now.
        only: The devices that --limit selects; None selects every device.

    Raises:
        PausedError: --limit leaves out devices of the rollout.
    """
    began = {name: device.release for name, device in record.plan.devices.items()}
    current = {device.name: device.release for device in devices}
    left_out = [name for name in began if name in current and only is not None and name not in only]
    if left_out:
        raise PausedError(
            f"rollout {record.id}",
            f"the rollout is unfinished, and --limit leaves out {_first_three(left_out)} of its devices",
            "a limit that includes all devices of the unfinished rollout",
            "run without --limit, or abandon the rollout with `fleet give-up`",
        )
    limit = record.plan.only
    declared = {name: release for name, release in current.items() if release and (limit is None or name in limit)}
    changes = [
        f"{name}: {declared.get(name, 'nothing')}, was {began.get(name, 'nothing')}"
        for name in sorted({*began, *declared})
        if began.get(name) != declared.get(name)
    ]
    return f"the inventory changed: {_first_three(changes)}" if changes else ""


def _first_three(texts: Sequence[str]) -> str:
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def pending_devices(record: Record, state: RolloutState) -> dict[str, PendingRollback]:
    """Return the rollbacks that a rollout did not perform because its process was killed; the keys are device names."""
    return {
        name: PendingRollback(rollout=record.id, left=device.release, to=device.was)
        for name, device in state.devices.items()
        if device.touched and device.was and device.outcome not in ("back", "pending")
        if state.has_failed or device.outcome == "failed"
    }


def require_unfinished(fleet: str, rollout: str, root: Path) -> Record:
    """Return the record of the unfinished rollout that a plan refers to. The caller must hold the fleet's lock.

    Args:
        fleet: The fleet's name.
        rollout: The id of the rollout that the plan refers to.
        root: The folder that contains all rollout records.

    Raises:
        BusyError: Another process has ended or resumed the rollout since the plan was made.
    """
    record = rollout_folder.unfinished(fleet, root)
    if record is None or record.id != rollout:
        raise BusyError(
            f"rollout {rollout}", "another process ended it after the plan was made", "", "run the command again"
        )
    return record


def abandon(record: Record, reason: str, status: Status = "given up") -> None:
    """End an unfinished rollout. The caller must hold the fleet's lock.

    The rollback of each device that still had to roll back becomes pending.

    Args:
        record: The rollout's record.
        reason: Why the rollout is abandoned.
        status: The final status of the rollout if no wave has failed. If one has failed, the status is `failed`.
    """
    state = record.load()
    status = "failed" if state.has_failed else status
    for name, rollback in pending_devices(record, state).items():
        cause = state.devices[name].reason or "the rollout failed"
        explanation = f"{cause}; not rolled back to {rollback.to}: the rollout was interrupted"
        state = state.with_device(name, outcome="pending", reason=explanation)
    rollout_audit.append(record, "give up", result=status, detail=reason)
    reasons = [state.reason if state.has_failed else "", f"abandoned: {reason}"]
    state = replace(state, status=status, reason="; ".join(filter(None, reasons)), ended=audit_log.now())
    record.save(state)
    report.write(record, state)
    (record.folder / rollout_folder.PUSH).unlink(missing_ok=True)


def require_resumable(fleet: Fleet, path: Path, root: Path) -> None:
    """Check that the unfinished rollout of a fleet can resume.

    Args:
        fleet: The fleet, as its inventory declares it.
        path: The inventory's path.
        root: The folder that contains all rollout records.

    Raises:
        NoReleaseError: No rollout is unfinished.
        PausedError: The rollout cannot resume because the inventory has changed.
        BusyError: Another process controls the rollout.
    """
    with rollout_folder.locked(fleet.name, root):
        record = unfinished_rollout(fleet.name, path, root)
        if record is None:
            raise NoReleaseError(
                str(root / fleet.name), "no rollout is unfinished", "an unfinished rollout", "leave out --resume"
            )
        if changes := inventory_changes(record, fleet.devices):
            raise PausedError(
                f"rollout {record.id}",
                f"cannot resume: {changes}",
                "the same releases in the inventory as when the rollout began",
                "revert the change; or run without --resume to abandon this rollout and begin a new one",
            )


def abandon_manually(fleet: str, root: Path, reason: str) -> Record:
    """Abandon the unfinished rollout of a fleet, even if a process on another machine controls it. Return its record.

    Args:
        fleet: The fleet's name.
        root: The folder that contains all rollout records.
        reason: The operator's reason, which is written to the record.

    Raises:
        BusyError: The rollout's process is running on this machine.
        NoReleaseError: No rollout is unfinished.
    """
    with rollout_folder.locked(fleet, root):
        record = rollout_folder.unfinished(fleet, root, elsewhere=False)
        if record is None:
            raise NoReleaseError(
                str(root / fleet), "no rollout is unfinished", "an unfinished rollout", "nothing needs to be done"
            )
        abandon(record, reason)
    return record
