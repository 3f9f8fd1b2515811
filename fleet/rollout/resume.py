"""The rollout that is unfinished, when another run comes: it goes on as it was begun, or it is given up.

Given up is one whose inventory declares something else now. That is no failure of its releases; but where a wave had
failed, and the controller was killed before it went back, what was touched is `pending` from then on: it goes back
before anything else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet import audit_log
from fleet.errors import BusyError, InventoryError, NoReleaseError, PausedError
from fleet.inventory.model import Device, Fleet
from fleet.records import report, rollout_audit, rollout_folder
from fleet.records.rollout_folder import Record
from fleet.records.state import RolloutState, Status

Json = dict[str, Any]


def of(fleet: str, path: Path, root: Path) -> Record | None:
    """The one of this inventory. The caller holds the lock. Raises BusyError, InventoryError, ConfigurationError."""
    if known := rollout_folder.rollouts(fleet, root):
        began = Path(known[-1].plan.get("inventory") or path)
        if began.exists() and _folder(began) != _folder(path):
            raise InventoryError(
                f"{path}: fleet.name",
                f"{fleet}, as in {began}, whose rollouts are recorded in {root / fleet}",
                "a name of its own for each inventory",
                "name one of them otherwise, or keep its records elsewhere: --rollouts, -e rollout_records=",
            )
    begun = rollout_folder.unfinished(fleet, root)
    if begun:
        begun.match()
    return begun


def _folder(path: Path) -> Path:
    """An inventory is named by its folder, or by the file in it."""
    real = path.resolve()
    return real.parent if real.is_file() else real


def changed(begun: Record, devices: Sequence[Device], only: Collection[str] | None = None) -> str:
    """What the inventory declares that is not what the rollout began with; nothing: it goes on.

    `devices`: of the fleet. `only`: --limit, which changes nothing of it. Raises PausedError where that leaves out
    devices of the rollout.
    """
    began = {name: told["release"] for name, told in begun.plan["devices"].items()}
    there = {device.name: device.release for device in devices}
    left_out = [name for name in began if name in there and only is not None and name not in only]
    if left_out:
        raise PausedError(
            f"rollout {begun.id}",
            f"it is unfinished, and {_some(left_out)} of it would be left out",
            "all of its devices: it goes on as it was begun",
            "run without --limit; or end it where it stands: fleet give-up",
        )
    limit = begun.plan.get("only")
    declared = {name: release for name, release in there.items() if release and (limit is None or name in limit)}
    other = [
        f"{name}: {declared.get(name, 'nothing')}, was {began.get(name, 'nothing')}"
        for name in sorted({*began, *declared})
        if began.get(name) != declared.get(name)
    ]
    return f"the inventory changed: {_some(other)}" if other else ""


def _some(found: Sequence[str]) -> str:
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def owed(begun: Record, state: RolloutState) -> dict[str, Json]:
    """Who would have gone back had it not been killed, as pending_rollbacks.of says it."""
    return {
        name: {"rollout": begun.id, "left": device.release, "to": device.was}
        for name, device in state.devices.items()
        if device.touched and device.was and device.outcome not in ("back", "pending")
        if state.has_failed or device.outcome == "failed"
    }


def take(fleet: str, rollout: str, root: Path) -> Record:
    """The one that was planned with. The caller holds the lock. Raises BusyError where it is no more."""
    begun = rollout_folder.unfinished(fleet, root)
    if begun is None or begun.id != rollout:
        raise BusyError(f"rollout {rollout}", "another process ended it meanwhile", "", "run it again")
    return begun


def give_up(begun: Record, why: str, status: Status = "given up") -> None:
    """End it, `failed` where a wave had failed. The caller holds the lock."""
    state = begun.load()
    status = "failed" if state.has_failed else status
    for name, told in owed(begun, state).items():
        reason = f"{state.devices[name].reason or 'the rollout failed'}; not back at {told['to']}: it was killed"
        state = state.with_device(name, outcome="pending", reason=reason)
    rollout_audit.append(begun, "give up", result=status, detail=why)
    reason = "; ".join(filter(None, (state.reason if state.has_failed else "", f"given up: {why}")))
    state = replace(state, status=status, reason=reason, ended=audit_log.now())
    begun.save(state)
    report.write(begun, state)
    (begun.folder / rollout_folder.PUSH).unlink(missing_ok=True)


def require_resumable(fleet: Fleet, path: Path, root: Path) -> None:
    """Raises NoReleaseError where no rollout is unfinished, PausedError where it cannot go on, BusyError.

    Args:
        fleet: as its inventory declares it.
        path: of the inventory.
        root: the folder of all records.
    """
    with rollout_folder.locked(fleet.name, root):
        begun = of(fleet.name, path, root)
        if begun is None:
            raise NoReleaseError(
                str(root / fleet.name), "no rollout is unfinished", "one to go on with", "leave out --resume"
            )
        if reason := changed(begun, fleet.devices):
            raise PausedError(
                f"rollout {begun.id}",
                f"cannot go on: {reason}",
                "what it began with",
                "revert that; or leave out --resume: it is given up, and a new one begins",
            )


def give_up_by_hand(fleet: str, root: Path, why: str) -> Record:
    """End the unfinished rollout of a fleet, also one whose process ran on another machine; returns its record.

    Args:
        fleet: its name.
        root: the folder of all records.
        why: what the record keeps of it.

    Raises BusyError while its process runs on this machine, NoReleaseError where there is none.
    """
    with rollout_folder.locked(fleet, root):
        begun = rollout_folder.unfinished(fleet, root, elsewhere=False)
        if begun is None:
            raise NoReleaseError(
                str(root / fleet), "no rollout is unfinished", "one to give up", "there is nothing to do"
            )
        give_up(begun, why)
    return begun
