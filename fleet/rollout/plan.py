"""The plan of a rollout: what is to run where, checked against the repository and against what is unfinished.

`plan_rollout` is the entry point. It asks no device, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_agent.core.errors import AgentError

from fleet.errors import InventoryError, StorageError
from fleet.inventory import model, rollout_policy
from fleet.inventory.git_commit import DIRTY, inventory_commit
from fleet.inventory.model import Device, Fleet
from fleet.records import rollout_folder
from fleet.records.rollout_folder import Record
from fleet.records.state import RolloutState
from fleet.releases.repository import Repository
from fleet.rollout import payload, pending_rollbacks, release_history, resume
from fleet.rollout.waves import check_approvals, check_wave_names, plan_waves

Json = dict[str, Any]


@dataclass(frozen=True)
class Unfinished:
    """What earlier rollouts of a fleet left.

    rollout, state: of the one that is unfinished; None: there is none.
    changed: why that one cannot go on; nothing: it does.
    owed: its devices that would have rolled back had it not been killed: name -> rollout, left, to.
    pending: devices that could not be rolled back after earlier ones, likewise.
    warnings: records that cannot be read.
    """

    rollout: Record | None
    state: RolloutState | None
    changed: str
    owed: Mapping[str, Json]
    pending: Mapping[str, Json]
    warnings: tuple[str, ...]

    @property
    def goes_on(self) -> bool:
        return self.rollout is not None and not self.changed

    def without_declaration(self, reason: str) -> Unfinished:
        """The same where the inventory may not be rolled out: only a rollout that failed still has to roll back."""
        owed = self.owed if self.state and self.state.has_failed else {}
        return replace(self, owed=owed, changed=(self.changed or reason) if owed else "")


@dataclass(frozen=True)
class Declaration:
    """What an inventory declares, as the repository has it; nothing at all where that may not be rolled out.

    repository: the folder that it was read from.
    rules: the fleet's `rollout:`.
    devices: those that change: name -> release, type, wave, groups; others: those that a limit leaves out, likewise.
    releases: what the plan notes of each (payload.offer).
    proven: releases that a wave of an earlier rollout passed with.
    """

    repository: str = ""
    rules: Json = field(default_factory=dict)
    devices: Json = field(default_factory=dict)
    others: Json = field(default_factory=dict)
    releases: Json = field(default_factory=dict)
    proven: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What `fleet wave plan` prints, and what plan.json begins with.

    size: devices of the fleet. asked: when; devices answer after that. resumes: the unfinished rollout that goes on.
    gives_up: the one that does not, and why. pending: devices that roll back first. refused: why nothing else happens.
    """

    fleet: str
    inventory: str
    only: list[str] | None
    commit: str | None
    development: bool
    outside_window: bool
    size: int
    again: bool
    asked: str
    repository: str
    rules: Json
    devices: Json
    others: Json
    releases: Json
    proven: list[str]
    resumes: str | None
    gives_up: Json | None
    pending: Json
    refused: Json | None
    warnings: list[str]

    def as_json(self) -> Json:
        return {each.name: getattr(self, each.name) for each in fields(self)}


def plan_rollout(
    path: Path,
    repository: AbstractContextManager[Repository],
    root: Path,
    only: Sequence[str] | None = None,
    outside_window: bool = False,
    again: bool = False,
    approve: Collection[str] = (),
) -> Json:
    """What the inventory declares, checked against the repository and against what this fleet does at the moment.

    What may not be rolled out is `refused` in the plan where devices have to roll back first, else raised.

    Args:
        path: of the inventory.
        repository: opened when it is entered.
        root: the folder of all records.
        only: no other devices change.
        outside_window: the maintenance window does not count.
        again: also a release that failed in the last rollout.
        approve: waves that somebody names as approved.

    Raises InventoryError, TrustError, NoReleaseError, PausedError, RolloutError, BusyError.
    """
    fleet = model.load(path)
    names = [device.name for device in fleet.devices if only is None or device.name in only]
    commit = inventory_commit(path)
    unfinished = resolve_unfinished(fleet, root, names, only)
    asked, refused = datetime.now(UTC), None
    try:
        declaration = declare(
            fleet,
            repository,
            root,
            names,
            outside_window=outside_window,
            approve=set(approve) - {wave.name for wave in unfinished.state.waves} if unfinished.state else approve,
            # What failed before had been allowed where it began; what rolls back first is looked at after that.
            try_failed=again or unfinished.goes_on or bool(unfinished.pending or unfinished.owed),
        )
    except (AgentError, OSError) as error:
        refused = _told_error(error)
        unfinished = unfinished.without_declaration(str(refused["found"]))
        if not unfinished.pending and not unfinished.owed:
            raise
        declaration = Declaration()
    planned = assemble_plan(fleet, names, unfinished, declaration, commit=commit, asked=asked, refused=refused)
    limit = None if only is None else sorted(only)
    return replace(planned, only=limit, outside_window=outside_window, again=again).as_json()


def resolve_unfinished(fleet: Fleet, root: Path, names: Collection[str], only: Collection[str] | None) -> Unfinished:
    """What has to be finished before a rollout of the fleet, or instead of it.

    Args:
        fleet: as its inventory declares it.
        root: the folder of all records.
        names: the devices that may change.
        only: what limits them to those; None: nothing.

    Raises BusyError, InventoryError, PausedError, ConfigurationError.
    """
    warnings: list[str] = []
    with rollout_folder.locked(fleet.name, root):
        rollout = resume.of(fleet.name, fleet.path, root)
        pending = pending_rollbacks.of(fleet.name, root, names, warnings)
        if rollout is None:
            return Unfinished(None, None, "", {}, pending, tuple(warnings))
        changed, state = resume.changed(rollout, fleet.devices, only), rollout.load()
        return Unfinished(rollout, state, changed, resume.owed(rollout, state), pending, tuple(warnings))


def declare(
    fleet: Fleet,
    repository: AbstractContextManager[Repository],
    root: Path,
    names: Collection[str],
    *,
    outside_window: bool,
    approve: Collection[str],
    try_failed: bool,
) -> Declaration:
    """The part of a plan that needs the rules, the repository, and what earlier rollouts say of its releases.

    Args:
        fleet: as its inventory declares it.
        repository: opened when it is entered.
        root: the folder of all records.
        names: the devices that may change.
        outside_window: the maintenance window does not count.
        approve: names that have to be waves.
        try_failed: also releases that failed the last time.

    Raises InventoryError, TrustError, NoReleaseError, PausedError, RolloutError.
    """
    of_fleet = [device for device in fleet.devices if device.release]
    declared = [device for device in of_fleet if device.name in names]
    if not declared:
        raise InventoryError(
            str(fleet.path),
            "no device declares a release",
            "release: NAME@VERSION for a group",
            "see docs/how-to/roll-out.md",
        )
    rules = model.rollout_policy_of(fleet)
    check_wave_names(fleet.devices, rules, f"{fleet.path}: rollout")
    plan_waves(of_fleet, rules, len(fleet.devices))  # who would be in no wave is told before anything else
    check_approvals(approve, fleet.devices, rules, fleet.path)
    if not outside_window:
        rollout_policy.require_open_window(rules, fleet.path)
    with repository as there:
        payload.check(there, fleet.development)
        folder = str(there.folder)
        releases = {name: payload.offer(there, name) for name in sorted({str(each.release) for each in declared})}
    earlier = release_history.of(fleet.name, releases, root)
    if not try_failed:
        release_history.refuse_failed(earlier.failed)
    return Declaration(
        folder,
        rules.model_dump(by_alias=True),
        {each.name: _told_device(each) for each in declared},
        {each.name: _told_device(each) for each in of_fleet if each not in declared},
        releases,
        tuple(sorted(earlier.proven)),
    )


def assemble_plan(
    fleet: Fleet,
    names: Collection[str],
    unfinished: Unfinished,
    declaration: Declaration,
    *,
    commit: str | None,
    asked: datetime,
    refused: Json | None,
) -> Plan:
    """The plan without what the caller asked for.

    Args:
        fleet: as its inventory declares it.
        names: the devices that may change.
        unfinished: what earlier rollouts left.
        declaration: nothing where it is `refused`.
        commit: of the inventory.
        asked: when the plan was begun.
        refused: an error's JSON.
    """
    rollout, changed = unfinished.rollout, unfinished.changed
    going_back = {name: each for name, each in unfinished.owed.items() if changed and name in names}
    dirty = commit is not None and commit.endswith(DIRTY)
    uncommitted = f"{fleet.path}: not as it was committed; the record names the commit with {DIRTY} behind it"
    return Plan(
        fleet=fleet.name,
        inventory=str(fleet.path.resolve()),
        only=None,
        commit=commit,
        development=fleet.development,
        outside_window=False,
        size=len(fleet.devices),
        again=False,
        asked=asked.isoformat(),
        repository=declaration.repository,
        rules=declaration.rules,
        devices=declaration.devices,
        others=declaration.others,
        releases=declaration.releases,
        proven=list(declaration.proven),
        resumes=rollout.id if rollout and not changed and not refused else None,
        gives_up={"rollout": rollout.id, "why": changed} if rollout and changed else None,
        pending={**unfinished.pending, **going_back},
        refused=refused,
        warnings=[*([uncommitted] if dirty else []), *unfinished.warnings],
    )


def _told_device(device: Device) -> Json:
    return {"release": device.release, "type": device.type, "wave": device.wave, "groups": device.groups}


def _told_error(error: AgentError | OSError) -> Json:
    if isinstance(error, OSError):
        error = StorageError(str(error.filename or "the operating system"), str(error.strerror or error))
    return error.as_json()
