"""The beginning of a rollout: what is to run where, who can take it, in which waves. No device is changed yet."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.core import durable
from edge_agent.core.errors import AgentError

from fleet import audit, errors
from fleet.errors import InventoryError, PausedError, RolloutError, StorageError
from fleet.inventory import model, rollout_policy
from fleet.inventory.model import Device, Fleet
from fleet.inventory.rollout_policy import Rules
from fleet.records import audit_trail, store
from fleet.records.state import owner
from fleet.records.store import Record
from fleet.releases.repository import Repository
from fleet.rollout import payload, pending_rollbacks, release_history, resume
from fleet.rollout import plan as plans
from fleet.rollout.preflight import Found

DIRTY = "-dirty"  # behind a commit, as `git describe` says it

Json = dict[str, Any]


def plan(
    path: Path,
    repository: AbstractContextManager[Repository],
    root: Path,
    only: Sequence[str] | None = None,
    outside_window: bool = False,
    again: bool = False,
    approve: Collection[str] = (),
) -> Json:
    """What the inventory declares, checked against the repository and against what this fleet does at the moment.

    `only`: no other devices change. `approve`: waves that somebody names as approved. What may not be rolled out is
    `refused` in the plan where devices have to go back first, else raised: InventoryError, TrustError, NoReleaseError,
    PausedError, RolloutError. Raises BusyError.
    """
    fleet = model.load(path)
    names = [device.name for device in fleet.devices if only is None or device.name in only]
    warnings: list[str] = []
    commit = commit_of(path)
    if commit and commit.endswith(DIRTY):
        warnings.append(f"{path}: not as it was committed; the record names the commit with {DIRTY} behind it")
    with store.locked(fleet.name, root):
        begun = resume.of(fleet.name, path, root)
        waits = pending_rollbacks.of(fleet.name, root, names, warnings)
        changed = resume.changed(begun, fleet.devices, only) if begun else ""
        state = begun.load() if begun else None
        owed = resume.owed(begun, state) if begun and state else {}
    planned: Json = {
        "fleet": fleet.name,
        "inventory": str(path.resolve()),
        "only": None if only is None else sorted(only),
        "commit": commit,
        "development": fleet.development,
        "outside_window": outside_window,
        "size": len(fleet.devices),
        "again": again,
        "asked": datetime.now(UTC).isoformat(),
    }
    refused = None
    try:
        unknown = set(approve) - {wave.name for wave in state.waves} if state else set(approve)
        declared = _declared(fleet, repository, names, outside_window, unknown)
        earlier = release_history.of(fleet.name, declared["releases"], root)
        declared["proven"] = sorted(earlier.proven)
        goes_on = begun and not changed  # what failed before had been allowed where it began
        if not again and not goes_on and not waits and not owed:  # else after those have gone back
            _refuse_failed(earlier.failed)
    except (AgentError, OSError) as error:
        owed = owed if state and state.has_failed else {}
        if not waits and not owed:
            raise
        refused = _told_error(error)
        changed = (changed or str(refused["found"])) if owed else ""
        declared = {"repository": "", "rules": {}, "devices": {}, "others": {}, "releases": {}, "proven": []}
    going_back = {name: told for name, told in owed.items() if changed and name in names}
    return {
        **planned,
        **declared,
        "resumes": begun.id if begun and not changed and not refused else None,
        "gives_up": {"rollout": begun.id, "why": changed} if begun and changed else None,
        "pending": {**waits, **going_back},
        "refused": refused,
        "warnings": warnings,
    }


def _declared(
    fleet: Fleet,
    repository: AbstractContextManager[Repository],
    names: Collection[str],
    outside_window: bool,
    approve: Collection[str],
) -> Json:
    """The part of a plan that needs the rules, and the repository."""
    path = fleet.path
    of_fleet = [device for device in fleet.devices if device.release]
    declared = [device for device in of_fleet if device.name in names]
    if not declared:
        raise InventoryError(
            str(path), "no device declares a release", "release: NAME@VERSION for a group", "see docs/fleet/rollouts.md"
        )
    known = rules_of(fleet.devices, path)
    plans.check(fleet.devices, known, f"{path}: rollout")
    plans.waves(of_fleet, known, len(fleet.devices))  # who would be in no wave is told before anything else
    if unknown := sorted(set(approve) - set(waves := plans.names(fleet.devices, known))):
        raise InventoryError(
            "--approve",
            f"{', '.join(unknown)}, which is no wave of {path}",
            f"one of: {', '.join(waves)}",
            "mend the name",
        )
    if known.window and not outside_window and not known.window.is_open(datetime.now(UTC)):
        raise PausedError(
            f"{path}: rollout.window",
            f"closed now ({datetime.now(UTC).isoformat(timespec='minutes')})",
            f"{', '.join(known.window.days)} {known.window.start} to {known.window.until} {known.window.timezone}",
            "wait; or in an emergency: --outside-window, -e rollout_outside_window=true",
        )
    with repository as there:
        payload.check(there, fleet.development)
        return {
            "repository": str(there.folder),
            "rules": known.model_dump(by_alias=True),
            "devices": {each.name: _told_device(each) for each in declared},
            "others": {each.name: _told_device(each) for each in of_fleet if each not in declared},
            "releases": {name: payload.offer(there, name) for name in sorted({str(each.release) for each in declared})},
        }


def _told_device(device: Device) -> Json:
    return {"release": device.release, "type": device.type, "wave": device.wave, "groups": device.groups}


def _told_error(error: AgentError | OSError) -> Json:
    if isinstance(error, OSError):
        error = StorageError(str(error.filename or "the operating system"), str(error.strerror or error))
    return error.as_json()


def rules_of(devices: Sequence[Device], path: Path) -> Rules:
    """The one `rollout:` of all devices. Raises InventoryError."""
    said = [device.variables.get("rollout") for device in devices]
    for device, value in zip(devices, said, strict=True):
        if value != said[0]:
            where = model.origin(path, device.name, "rollout", device.groups, value)
            raise InventoryError(
                where,
                f"{device.name}: another rollout: than {devices[0].name}",
                "one for the fleet",
                "group_vars/all.yml",
            )
    return rollout_policy.of(said[0], model.origin(path, devices[0].name, "rollout", devices[0].groups, said[0]))


def _refuse_failed(failed: Mapping[str, str], rows: Sequence[str] = ()) -> None:
    """A release that failed is not tried on the devices that were spared. `rows`: said besides."""
    if failed:
        raise RolloutError(
            ", ".join(sorted(failed)),
            "; ".join([*dict.fromkeys(failed.values()), *rows]),
            "a release that did not fail",
            "revert the inventory's `release`, or publish a new version; or try again all the same: --again, "
            "-e rollout_again=true",
        )


def commit_of(path: Path) -> str | None:
    """What is checked out where the inventory lies, `-dirty` where that says something else; None outside git."""
    folder = path if path.is_dir() else path.parent
    git = partial(subprocess.run, cwd=folder, capture_output=True, text=True, check=False)
    done = git(["git", "rev-parse", "HEAD"])
    if done.returncode != 0:  # without a commit git says HEAD, and fails
        return None
    other = git(["git", "status", "--porcelain", "--ignored", "."]).stdout
    return done.stdout.strip() + (DIRTY if other else "")


def preflight(planned: Json, answers: Mapping[str, Json], root: Path, check: bool = False) -> Json:
    """Who can take it, in which waves; begins the record unless `check`, or takes up the one that is unfinished.

    `answers`: device -> {"status": what its agent said, or None; "reason": why there is none}. Devices that an earlier
    rollout could not call back were sent back just before. Raises RolloutError.
    """
    rows = [f"warning: {each}" for each in planned.get("warnings", ())]
    if ended := planned.get("gives_up"):
        rows.append(f"rollout {ended['rollout']} is given up: {ended['why']}")
        if not check:
            with store.locked(planned["fleet"], root):
                resume.give_up(resume.take(planned["fleet"], ended["rollout"], root), ended["why"])
    returned, still = _back(planned, answers, root, check)
    rows += returned
    if planned.get("refused"):
        raise errors.from_json(planned["refused"], rows)
    if not planned.get("again") and not planned["resumes"]:
        _refuse_failed(release_history.of(planned["fleet"], planned["releases"], root).failed, rows)
    if planned["resumes"]:
        result = _resume(planned, root, check)
        return {**result, "table": [*rows, *result["table"]]}
    found = Found(planned, answers, rows, still)
    result = found.as_json()
    if check or not result["go"]:
        return result
    with store.locked(planned["fleet"], root):
        store.unfinished(planned["fleet"], root)  # raises where another one began meanwhile

        def fill(made: Record) -> None:
            payload.bring(made, _releases(made, found.changing), planned["repository"])
            before = {name: _report(answers, name) for name in answers}
            durable.write_file(made.folder / store.BEFORE, store.content(before))
            detail = f"{len(found.changing)} devices, {len(found.waves)} waves"
            audit_trail.append(made, "begin", result="running", detail=detail)

        begun = store.begin(planned["fleet"], {**planned, "by": audit.who()}, found.state(), root, fill)
    return {**result, **_told(begun)}


def _back(planned: Json, answers: Mapping[str, Json], root: Path, check: bool) -> tuple[list[str], dict[str, str]]:
    """Lines about the devices that an earlier rollout could not call back, and who is still not: name -> why."""
    waits = planned.get("pending", {})  # a plan of an earlier version has none
    if check:
        return [f"goes back first: {name}: {told['left']} -> {told['to']}" for name, told in waits.items()], {}
    with store.locked(planned["fleet"], root):
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
        "push": str(begun.folder / store.PUSH),
    }


def _resume(planned: Json, root: Path, check: bool) -> Json:
    with store.locked(planned["fleet"], root):
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
        audit_trail.append(begun, "resume", result="running", detail=state.reason)
    rows = [f"rollout {begun.id} goes on: {len(told['order'])} of {len(state.devices)} devices are left"]
    return {"go": True, "status": "resumed", "unfit": {}, "reason": rows[0], "table": rows, **told}
