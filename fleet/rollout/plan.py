"""Plan a rollout: what is to run where, checked against the repository and against unfinished work.

`plan_rollout` is the entry point. It contacts no device and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.core.errors import AgentError

from fleet.devices.eligibility import ReleaseInfo
from fleet.errors import InventoryError, StorageError
from fleet.inventory import model, rollout_policy
from fleet.inventory.git_commit import DIRTY, inventory_commit
from fleet.inventory.model import Device, Fleet
from fleet.inventory.rollout_policy import RolloutPolicy
from fleet.records import rollout_folder
from fleet.records.rollout_folder import Record
from fleet.records.rollout_plan import PendingRollback, PlannedDevice, Refusal, RolloutPlan
from fleet.records.state import RolloutState
from fleet.releases.repository import Repository
from fleet.rollout import payload, pending_rollbacks, release_history, resume
from fleet.rollout.waves import check_approvals, check_wave_names, plan_waves


@dataclass(frozen=True)
class UnfinishedWork:
    """The work that earlier rollouts of a fleet have not finished.

    Attributes:
        rollout: the unfinished rollout, or None.
        state: of the unfinished rollout.
        changes: why the unfinished rollout cannot go on; empty where it does.
        interrupted: its devices that would have rolled back if its process had not been killed.
        pending: devices that could not roll back after earlier rollouts.
        warnings: records that cannot be read.
    """

    rollout: Record | None
    state: RolloutState | None
    changes: str
    interrupted: Mapping[str, PendingRollback]
    pending: Mapping[str, PendingRollback]
    warnings: tuple[str, ...]

    @property
    def goes_on(self) -> bool:
        """True where the unfinished rollout is resumed."""
        return self.rollout is not None and not self.changes

    def without_declaration(self, reason: str) -> UnfinishedWork:
        """Return the unfinished work where the inventory may not be rolled out: the rollbacks of a failed rollout.

        `reason`: why the inventory may not be rolled out.
        """
        interrupted = self.interrupted if self.state and self.state.has_failed else {}
        changes = (self.changes or reason) if interrupted else ""
        return replace(self, interrupted=interrupted, changes=changes)


@dataclass(frozen=True)
class Declaration:
    """The content of an inventory, checked against the repository; empty where it may not be rolled out.

    Attributes:
        repository: the folder that the repository was read from.
        policy: of the fleet's rollouts; None where it may not be rolled out.
        devices: those that may change, by name.
        others: those that a limit leaves out, by name.
        releases: of the devices.
        proven: releases that passed a wave of an earlier rollout.
    """

    repository: str = ""
    policy: RolloutPolicy | None = None
    devices: Mapping[str, PlannedDevice] = field(default_factory=dict)
    others: Mapping[str, PlannedDevice] = field(default_factory=dict)
    releases: Mapping[str, ReleaseInfo] = field(default_factory=dict)
    proven: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlanOptions:
    """The options that the operator chose.

    Attributes:
        only: names of the devices that may change; None: every device.
        outside_window: the maintenance window is ignored.
        again: a release that failed in the last rollout may be tried again.
        approve: names of the waves that are approved.
    """

    only: Sequence[str] | None = None
    outside_window: bool = False
    again: bool = False
    approve: Collection[str] = ()


def plan_rollout(
    path: Path, repository: AbstractContextManager[Repository], root: Path, options: PlanOptions
) -> RolloutPlan:
    """Plan what the inventory declares, checked against the repository and against the fleet's unfinished work.

    Where the inventory may not be rolled out but devices have to roll back first, the plan records the error as
    `refused`.

    Args:
        path: of the inventory.
        repository: is opened when it is entered.
        root: the folder of all records.
        options: that the operator chose.

    Raises:
        InventoryError, TrustError, NoReleaseError, PausedError, RolloutError, BusyError: the inventory may not be
            rolled out, and no device has to roll back first.
    """
    fleet = model.load(path)
    names = [device.name for device in fleet.devices if options.only is None or device.name in options.only]
    commit = inventory_commit(path)
    unfinished = find_unfinished_work(fleet, root, names, options.only)
    planned_at, refusal = datetime.now(UTC), None
    recorded_waves = {wave.name for wave in unfinished.state.waves} if unfinished.state else set()
    # A failed release was allowed when the unfinished rollout began; after rollbacks, preflight checks for failures.
    try_failed = options.again or unfinished.goes_on or bool(unfinished.pending or unfinished.interrupted)
    try:
        declaration = read_declaration(
            fleet,
            repository,
            root,
            names,
            outside_window=options.outside_window,
            approve=set(options.approve) - recorded_waves,
            try_failed=try_failed,
        )
    except (AgentError, OSError) as error:
        refusal = Refusal.model_validate(_four_parts(error).as_json())
        unfinished = unfinished.without_declaration(refusal.found)
        if not unfinished.pending and not unfinished.interrupted:
            raise
        declaration = Declaration()
    return _assemble(fleet, names, unfinished, declaration, options, commit, planned_at, refusal)


def find_unfinished_work(
    fleet: Fleet, root: Path, names: Collection[str], only: Collection[str] | None
) -> UnfinishedWork:
    """Find what has to be finished before a rollout of the fleet, or instead of it.

    Args:
        fleet: as its inventory declares it.
        root: the folder of all records.
        names: the devices that may change.
        only: the devices that a limit selects; None: every device.

    Raises:
        BusyError: another process works on the unfinished rollout.
        InventoryError: the records belong to another inventory.
        PausedError: the limit leaves out devices of the unfinished rollout.
        ConfigurationError: the record of the unfinished rollout cannot be read.
    """
    warnings: list[str] = []
    with rollout_folder.locked(fleet.name, root):
        rollout = resume.unfinished_rollout(fleet.name, fleet.path, root)
        pending = pending_rollbacks.find(fleet.name, root, names, warnings)
        if rollout is None:
            return UnfinishedWork(None, None, "", {}, pending, tuple(warnings))
        changes, state = resume.inventory_changes(rollout, fleet.devices, only), rollout.load()
        interrupted = resume.pending_devices(rollout, state)
        return UnfinishedWork(rollout, state, changes, interrupted, pending, tuple(warnings))


def read_declaration(
    fleet: Fleet,
    repository: AbstractContextManager[Repository],
    root: Path,
    names: Collection[str],
    *,
    outside_window: bool,
    approve: Collection[str],
    try_failed: bool,
) -> Declaration:
    """Check what the inventory declares against its rollout policy, the repository and earlier rollouts.

    Args:
        fleet: as its inventory declares it.
        repository: is opened when it is entered.
        root: the folder of all records.
        names: the devices that may change.
        outside_window: the maintenance window is ignored.
        approve: names of the waves that are approved.
        try_failed: releases that failed before may be tried again.

    Raises:
        InventoryError, TrustError, NoReleaseError, PausedError, RolloutError: it may not be rolled out.
    """
    with_release = [device for device in fleet.devices if device.release]
    selected = [device for device in with_release if device.name in names]
    if not selected:
        raise InventoryError(
            str(fleet.path),
            "no device declares a release",
            "release: NAME@VERSION for a group",
            "see docs/how-to/roll-out.md",
        )
    policy = model.rollout_policy_of(fleet)
    check_wave_names(fleet.devices, policy, f"{fleet.path}: rollout")
    plan_waves(with_release, policy, len(fleet.devices))  # raises where a device would be in no wave
    check_approvals(approve, fleet.devices, policy, fleet.path)
    if not outside_window:
        rollout_policy.require_open_window(policy, fleet.path)
    with repository as opened:
        payload.check_repository(opened, fleet.development)
        folder = str(opened.folder)
        releases = {
            name: payload.release_info(opened, name) for name in sorted({str(each.release) for each in selected})
        }
    history = release_history.load(fleet.name, releases, root)
    if not try_failed:
        release_history.refuse_failed(history.failed)
    return Declaration(
        folder,
        policy,
        {device.name: _planned_device(device) for device in selected},
        {device.name: _planned_device(device) for device in with_release if device not in selected},
        releases,
        tuple(sorted(history.proven)),
    )


def _assemble(
    fleet: Fleet,
    names: Collection[str],
    unfinished: UnfinishedWork,
    declaration: Declaration,
    options: PlanOptions,
    commit: str | None,
    planned_at: datetime,
    refusal: Refusal | None,
) -> RolloutPlan:
    rollout, changes = unfinished.rollout, unfinished.changes
    interrupted = {name: each for name, each in unfinished.interrupted.items() if changes and name in names}
    dirty = commit is not None and commit.endswith(DIRTY)
    uncommitted = f"{fleet.path}: not as it was committed; the record names the commit with {DIRTY} behind it"
    return RolloutPlan.model_validate(
        {
            "fleet": fleet.name,
            "inventory": str(fleet.path.resolve()),
            "only": None if options.only is None else sorted(options.only),
            "commit": commit,
            "development": fleet.development,
            "outside_window": options.outside_window,
            "size": len(fleet.devices),
            "again": options.again,
            "asked": planned_at.isoformat(),
            "repository": declaration.repository,
            "rules": declaration.policy.model_dump(by_alias=True) if declaration.policy else {},
            "devices": {name: each.as_json() for name, each in declaration.devices.items()},
            "others": {name: each.as_json() for name, each in declaration.others.items()},
            "releases": {name: each.as_json() for name, each in declaration.releases.items()},
            "proven": list(declaration.proven),
            "resumes": rollout.id if rollout and not changes and not refusal else None,
            "gives_up": {"rollout": rollout.id, "why": changes} if rollout and changes else None,
            "pending": {name: each.as_json() for name, each in {**unfinished.pending, **interrupted}.items()},
            "refused": refusal.as_json() if refusal else None,
            "warnings": [*([uncommitted] if dirty else []), *unfinished.warnings],
        }
    )


def _planned_device(device: Device) -> PlannedDevice:
    return PlannedDevice(release=str(device.release), type=device.type, wave=device.wave, groups=list(device.groups))


def _four_parts(error: AgentError | OSError) -> AgentError:
    """Return an error of the operating system as one with where, found, expected and remedy."""
    if isinstance(error, OSError):
        return StorageError(str(error.filename or "the operating system"), str(error.strerror or error))
    return error
