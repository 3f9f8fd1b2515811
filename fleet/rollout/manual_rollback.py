"""Roll devices back manually (`playbooks/rollback.yml`): the effect on rollouts, and the audit trail.

A record that cannot be read or written never delays the rollback of a device: it only causes a warning.
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
    """The rollback of one device.

    Attributes:
        result: what its agent printed; None: nothing.
        response: its status after the rollback; the reason may be that of the rollback itself.
        skipped: the device was left alone, since it does not run a release of the latest rollout.
    """

    result: CommandResult | None
    response: StatusResponse
    skipped: bool = False


def begin_manual_rollback(fleet: str, root: Path, every: bool = False) -> ManualRollbackStart:
    """Abandon the unfinished rollout, since the next run would resume it, and return what has to roll back.

    Args:
        fleet: its name.
        root: the folder of all records.
        every: roll back every device, whatever it runs.

    Raises:
        BusyError: a rollout of the fleet runs.
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
    """Return the releases of the latest rollout whose devices still run them; None where that is not known."""
    with _warn_on_error(warnings, "the releases of the latest rollout are not known: every device rolls back"):
        for record in reversed(rollout_folder.rollouts(fleet, root)):
            devices = record.load().devices.values()
            if releases := {device.release for device in devices if device.touched and device.outcome != "back"}:
                return sorted(releases)
        warnings.append("no rollout is recorded whose release a device may still run: every device rolls back")
    return None


def finish_manual_rollback(
    fleet: str, root: Path, devices: Mapping[str, ManualRollback], reason: str, every: bool = False
) -> ManualRollbackEnd:
    """Record which devices have rolled back, according to the release that each has loaded.

    Where every device was left alone, all of them count as failed: in an emergency, an operator must not read that as
    success.

    Args:
        fleet: its name.
        root: the folder of all records.
        devices: the rollback of each device.
        reason: why the operator rolls back.
        every: every device was to roll back, whatever it ran.
    """
    rows, failed = [], []
    skipped: dict[str, str] = {}
    warnings = begin_manual_rollback(fleet, root, every).warnings  # the same as before, which no output has shown yet
    for name, rollback in devices.items():
        if rollback.skipped and rollback.response.status:
            running = rollback.response.status.current or "nothing"
            skipped[name] = f"{name}: left alone: runs {running}, which the latest rollout did not deliver"
            continue
        release, loaded, problem = _outcome(rollback)
        with _warn_on_error(warnings, f"{name}: not in the audit trail"):
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
        # A device that no longer runs the failed release need not roll back once more.
        responses = {name: rollback.response for name, rollback in devices.items()}
        pending = pending_rollbacks.find(fleet, root, devices, warnings)
        pending_rollbacks.record_completed(fleet, root, pending, responses)
    if skipped:
        warnings.append(f"{len(skipped)} device(s) were left alone; with --limit all every device rolls back")
    failed += skipped if not rows else []
    return ManualRollbackEnd([*rows, *skipped.values(), *(f"warning: {each}" for each in warnings)], failed)


def _outcome(rollback: ManualRollback) -> tuple[str | None, str | None, str]:
    """Return the release that a device was to roll back to, the one it has loaded, and why the rollback failed."""
    release = rollback.result.release if rollback.result else None
    loaded = eligibility.loaded_release(rollback.response.status)
    if release is not None and loaded == release:
        return release, loaded, ""
    return release, loaded, rollback.response.reason or f"has loaded {loaded or 'nothing'}, not {release}"


@contextlib.contextmanager
def _warn_on_error(warnings: list[str], problem: str) -> Iterator[None]:
    """Turn any error but BusyError into a warning."""
    try:
        yield
    except BusyError:
        raise
    except Exception as error:  # whatever is wrong with a record, the device takes precedence
        kind = "" if isinstance(error, OSError | FleetError) else f"{type(error).__name__}: "
        warnings.append(f"{problem} ({kind}{' '.join(str(error).split())})")
