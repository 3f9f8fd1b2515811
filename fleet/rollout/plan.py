"""Plan a rollout: decide which device is to run which release, and check whether the rollout is allowed.

`plan_rollout` is the entry point. It does not contact devices and does not change any record.
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
    """The work that earlier rollouts of a fleet left unfinished.

    Attributes:
        rollout: The record of the unfinished rollout; None if there is none.
        state: The state of the unfinished rollout.
        changes: Why the unfinished rollout cannot resume; empty if it can.
        interrupted: The rollbacks that the unfinished rollout would have performed if its process had not been killed.
        pending: The rollbacks that devices could not perform when earlier rollouts failed.
        warnings: A line for each record that cannot be read.
    """

    rollout: Record | None
    state: RolloutState | None
    changes: str
    interrupted: Mapping[str, PendingRollback]
    pending: Mapping[str, PendingRollback]
    warnings: tuple[str, ...]

    @property
    def goes_on(self) -> bool:
        """Return whether an earlier rollout is unfinished and can resume."""
        return self.rollout is not None and not self.changes

    def without_declaration(self, reason: str) -> UnfinishedWork:
        """Return the work that is still to be done if the inventory must not be rolled out: only rollbacks.

        The interrupted rollbacks of the unfinished rollout are kept only if that rollout has failed. `reason` says why
        the inventory must not be rolled out.
        """
        interrupted = self.interrupted if self.state and self.state.has_failed else {}
        changes = (self.changes or reason) if interrupted else ""
        return replace(self, interrupted=interrupted, changes=changes)


@dataclass(frozen=True)
class Declaration:
    """The devices and releases that an inventory declares, after the checks in `read_declaration`.

    All fields are empty if the inventory must not be rolled out.

    Attributes:
        repository: The folder of the repository of releases.
        policy: The fleet's rollout policy; None if the inventory must not be rolled out.
        devices: The devices that the rollout may update, by name.
        others: The devices that --limit leaves out, by name.
        releases: Information about each release of `devices`, by NAME@VERSION.
        proven: Releases that passed a wave of an earlier rollout.
    """

    repository: str = ""
    policy: RolloutPolicy | None = None
    devices: Mapping[str, PlannedDevice] = field(default_factory=dict)
    others: Mapping[str, PlannedDevice] = field(default_factory=dict)
    releases: Mapping[str, ReleaseInfo] = field(default_factory=dict)
    proven: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlanOptions:
    """The options that the operator chose for a rollout.

    Attributes:
        only: Names of the devices that the rollout may update; None means all devices.
        outside_window: Whether the maintenance window is ignored.
        again: Whether a release whose last rollout failed may be tried again.
        approve: Names of the waves that the operator approves.
    """

    only: Sequence[str] | None = None
    outside_window: bool = False
    again: bool = False
    approve: Collection[str] = ()


def plan_rollout(
    path: Path, repository: AbstractContextManager[Repository], root: Path, options: PlanOptions
) -> RolloutPlan:
    """Plan a rollout of the releases that an inventory declares, including unfinished rollbacks of earlier rollouts.

    If the inventory must not be rolled out but devices still have to roll back, the plan contains only these rollbacks,
    and its field `refused` contains the error.

    Args:
        path: The inventory's path.
        repository: A context manager that opens the repository.
        root: The folder that contains all rollout records.
        options: The options that the operator chose.

    Raises:
        InventoryError, TrustError, NoReleaseError, PausedError, RolloutError, BusyError: The inventory must not be
            rolled out, and no device still has to roll back.
    """
    fleet = model.load(path)
    names = [device.name for device in fleet.devices if options.only is None or device.name in options.only]
    commit = inventory_commit(path)
    unfinished = find_unfinished_work(fleet, root, names, options.only)
    planned_at, refusal = datetime.now(UTC), None
    recorded_waves = {wave.name for wave in unfinished.state.waves} if unfinished.state else set()
    # A resumed rollout was already allowed to use its releases. If devices roll back first, preflight checks for failed
    # releases after these rollbacks.
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
    """Find the work that earlier rollouts of the fleet left unfinished.

    Args:
        fleet: The fleet, as its inventory declares it.
        root: The folder that contains all rollout records.
        names: The devices that the rollout may update.
        only: The devices that --limit selects; None selects every device.

    Raises:
        BusyError: Another process controls the unfinished rollout.
        InventoryError: The records belong to another inventory.
        PausedError: --limit leaves out devices of the unfinished rollout.
        ConfigurationError: The record of the unfinished rollout cannot be read.
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
    """Check the devices and releases of an inventory against its rollout policy, the repository and earlier rollouts.

    Args:
        fleet: The fleet, as its inventory declares it.
        repository: A context manager that opens the repository.
        root: The folder that contains all rollout records.
        names: The devices that the rollout may update.
        outside_window: Whether the maintenance window is ignored.
        approve: Names of the waves that the operator approves.
        try_failed: Whether releases whose last rollout failed may be tried again.

    Raises:
        InventoryError, TrustError, NoReleaseError, PausedError, RolloutError: The inventory must not be rolled out.
    """
    with_release = [device for device in fleet.devices if device.release]
    selected = [device for device in with_release if device.name in names]
    if not selected:
        raise InventoryError(
            str(fleet.path),
            "no device declares a release",
            "`release: NAME@VERSION` for at least one group or device",
            "declare a release; see docs/how-to/roll-out.md",
        )
    policy = model.rollout_policy_of(fleet)
    check_wave_names(fleet.devices, policy, f"{fleet.path}: rollout")
    plan_waves(with_release, policy, len(fleet.devices))  # raises InventoryError if a device would be in no wave
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
    uncommitted = f"{fleet.path}: has uncommitted changes, so the record adds {DIRTY} to the commit"
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
    """Convert an error of the operating system to an AgentError, and return any other error unchanged."""
    if isinstance(error, OSError):
        return StorageError(str(error.filename or "the operating system"), str(error.strerror or error))
    return error
