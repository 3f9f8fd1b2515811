"""Devices are called back by hand (playbooks/rollback.yml): what that means for rollouts, and the audit trail.

No device is kept waiting by a record that cannot be read or written: what is wrong with it is said, and is all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fleet import audit_log
from fleet.devices import eligibility
from fleet.errors import BusyError, FleetError
from fleet.records import rollout_folder
from fleet.rollout import pending_rollbacks, resume

Json = dict[str, Any]


def begin(fleet: str, root: Path, every: bool = False) -> Json:
    """Give up the rollout that is unfinished: else the next run would go on with it. Raises BusyError while it runs.

    `brought`: the releases that are called back; None: every device is, whatever it runs, as it is with `every`.
    """
    warnings: list[str] = []
    given_up = None
    with (
        _told(warnings, "no rollout was given up: the next run may go on with one"),
        rollout_folder.locked(fleet, root),
    ):
        if begun := rollout_folder.unfinished(fleet, root):
            resume.give_up(begun, "called back by hand", status="failed")
            given_up = begun.id
    brought = None if every else _brought(fleet, root, warnings)
    return {"given_up": given_up, "brought": brought, "warnings": warnings}


def _brought(fleet: str, root: Path, warnings: list[str]) -> list[str] | None:
    """What the latest rollout that left something on devices left there; None where that is not known."""
    with _told(warnings, "what the latest rollout brought is not known: every device is called back"):
        for made in reversed(rollout_folder.rollouts(fleet, root)):
            devices = made.load().devices.values()
            if found := {device.release for device in devices if device.touched and device.outcome != "back"}:
                return sorted(found)
        warnings.append("no rollout is recorded that left anything on a device: every device is called back")
    return None


def end(fleet: str, root: Path, devices: Mapping[str, Json], reason: str, every: bool = False) -> Json:
    """Who is back, by what is loaded. `devices`: name -> {"said", "status", "reason"} of its rollback, and "left" where
    it was not called back for what it runs. `failed`: who is not back; everybody, where all were left alone.
    """
    rows, wrong = [], []
    alone: dict[str, str] = {}
    warnings: list[str] = begin(fleet, root, every)["warnings"]  # the same as before, when nobody could read them
    for name, told in devices.items():
        if told.get("left") and told["status"]:
            runs = told["status"]["current"]
            alone[name] = f"{name}: left alone: runs {runs or 'nothing'}, which the latest rollout did not bring"
            continue
        wanted, loaded, detail = _outcome(told)
        with _told(warnings, f"{name}: not in the audit trail"):
            audit_log.append(
                root / fleet / audit_log.FILE,
                "rollback",
                fleet=fleet,
                device=name,
                release=wanted,
                result="failed" if detail else "back",
                detail="; ".join(filter(None, (reason, detail))),
            )
        rows.append(f"{name}: " + (f"NOT back: {detail}" if detail else f"runs {loaded}"))
        wrong += [name] if detail else []
    with _told(warnings, "who was pending still is, in the records"), rollout_folder.locked(fleet, root):
        # Who is off a release that failed, by hand, is not called back once more.
        pending_rollbacks.settle(fleet, root, pending_rollbacks.of(fleet, root, devices, warnings), devices)
    if alone:
        warnings.append(f"{len(alone)} device(s) were left alone; with --limit all every device is called back")
    wrong += alone if not rows else []  # whoever calls back in an emergency must not take that for done
    return {"table": [*rows, *alone.values(), *(f"warning: {each}" for each in warnings)], "failed": wrong}


def _outcome(told: Json) -> tuple[str | None, str | None, str]:
    """The release that a device was to go back to, the one it has loaded, and why that is not good, or nothing."""
    wanted = (told["said"] or {}).get("release")
    loaded = eligibility.loaded(told["status"]).get("release")
    if wanted is not None and loaded == wanted:
        return wanted, loaded, ""
    return wanted, loaded, told["reason"] or f"has loaded {loaded or 'nothing'}, not {wanted}"


@contextlib.contextmanager
def _told(warnings: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except BusyError:
        raise
    except Exception as error:  # whatever a record has become: the device comes first
        kind = "" if isinstance(error, OSError | FleetError) else f"{type(error).__name__}: "
        warnings.append(f"{what} ({kind}{' '.join(str(error).split())})")
