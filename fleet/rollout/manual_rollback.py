"""Support manual rollbacks (`playbooks/rollback.yml`): abandon the unfinished rollout and record the result.

If a record cannot be read or written, the operator gets a warning, but the rollback of a device is not delayed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet import audit_log
from fleet.devices import eligibility
from fleet.devices.messages import CommandResult, StatusResponse
from fleet.errors import BusyError, FleetError
from fleet.records import rollout_folder
from fleet.rollout import pending_rollbacks, resume
from fleet.rollout.step_results import ManualRollbackEnd, ManualRollbackStart


@dataclass(frozen=True)
class ManualRollback:
    """The manual rollback of one device.

    Attributes:
        result: The result of the rollback that the device's agent printed; None if it printed nothing.
        response: The device's status after the rollback, or the reason why the rollback or the status query failed.
        skipped: True if the device was not rolled back because it does not run a release of the latest rollout.
    """

    result: CommandResult | None
    response: StatusResponse
    skipped: bool = False


def begin_manual_rollback(fleet: str, root: Path, every: bool = False) -> ManualRollbackStart:
    """Abandon the fleet's unfinished rollout, and return the releases from which devices have to roll back.

    Args:
        fleet: The fleet's name.
        root: The folder that contains all rollout records.
        every: Whether every device has to roll back, regardless of the release that it runs.

    Raises:
        BusyError: A rollout of the fleet is running.
    """
    warnings: list[str] = []
    abandoned = None
    problem = "no rollout was abandoned: the next run may resume one"
    with _warn_on_error(warnings, problem), rollout_folder.locked(fleet, root):
        if record := rollout_folder.unfinished(fleet, root):
            resume.abandon(record, "devices are rolled back manually", status="failed")
            abandoned = record.id
    releases = None if every else _latest_releases(fleet, root, warnings)
    return ManualRollbackStart(given_up=abandoned, brought=releases, warnings=warnings)


def _latest_releases(fleet: str, root: Path, warnings: list[str]) -> list[str] | None:
    """Return which releases of the latest rollout could still be running on a device; None if this is not known."""
    with _warn_on_error(warnings, "the releases of the latest rollout are not known, so every device rolls back"):
        for record in reversed(rollout_folder.rollouts(fleet, root)):
            devices = record.load().devices.values()
            if releases := {device.release for device in devices if device.touched and device.outcome != "back"}:
                return sorted(releases)
        warnings.append("no recorded rollout has a release that a device may still run, so every device rolls back")
    return None


def finish_manual_rollback(
    fleet: str, root: Path, devices: Mapping[str, ManualRollback], reason: str, every: bool = False
) -> ManualRollbackEnd:
    """Record for each device whether its manual rollback succeeded.

    A rollback succeeded if the device has loaded the release that the agent named in its result. If every device was
    skipped, all devices count as failed, because in an emergency an operator must not mistake this result for success.

    Args:
        fleet: The fleet's name.
        root: The folder that contains all rollout records.
        devices: The manual rollback of each device, by device name.
        reason: The operator's reason for the rollback.
        every: Whether every device had to roll back, regardless of the release that it ran.
    """
    rows, failed = [], []
    skipped: dict[str, str] = {}
    warnings = begin_manual_rollback(fleet, root, every).warnings  # these warnings have not been shown yet
    for name, rollback in devices.items():
        if rollback.skipped and rollback.response.status:
            running = rollback.response.status.current or "nothing"
            skipped[name] = f"{name}: left unchanged: runs {running}, which the latest rollout did not deliver"
            continue
        release, loaded, problem = _outcome(rollback)
        with _warn_on_error(warnings, f"{name}: its rollback was not written to the audit trail"):
            audit_log.append(
                root / fleet / audit_log.FILE,
                "rollback",
                fleet=fleet,
                device=name,
                release=release,
                result="failed" if problem else "back",
                detail="; ".join(filter(None, (reason, problem))),
            )
        rows.append(f"{name}: " + (f"NOT rolled back: {problem}" if problem else f"runs {loaded}"))
        failed += [name] if problem else []
    with (
        _warn_on_error(warnings, "pending rollbacks were not updated in the records"),
        rollout_folder.locked(fleet, root),
    ):
        # A device that no longer runs the failed release need not roll back again.
        responses = {name: rollback.response for name, rollback in devices.items()}
        pending = pending_rollbacks.find(fleet, root, devices, warnings)
        pending_rollbacks.record_completed(fleet, root, pending, responses)
    if skipped:
        warnings.append(f"{len(skipped)} device(s) were left unchanged; with --limit all, every device rolls back")
    failed += skipped if not rows else []
    return ManualRollbackEnd([*rows, *skipped.values(), *(f"warning: {each}" for each in warnings)], failed)


def _outcome(rollback: ManualRollback) -> tuple[str | None, str | None, str]:
    """Return the release that a device should have loaded, the release that it has loaded, and why its rollback failed.

    The reason is empty if the rollback succeeded.
    """
    release = rollback.result.release if rollback.result else None
    loaded = eligibility.loaded_release(rollback.response.status)
    if release is not None and loaded == release:
        return release, loaded, ""
    return release, loaded, rollback.response.reason or f"has loaded {loaded or 'nothing'}, not {release}"


@contextlib.contextmanager
def _warn_on_error(warnings: list[str], problem: str) -> Iterator[None]:
    """Catch every error except BusyError, and add a warning to `warnings` that begins with `problem`."""
    try:
        yield
    except BusyError:
        raise
    except Exception as error:  # rolling the device back is more important than any problem with a record
        kind = "" if isinstance(error, OSError | FleetError) else f"{type(error).__name__}: "
        warnings.append(f"{problem} ({kind}{' '.join(str(error).split())})")
