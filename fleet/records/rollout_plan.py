"""The types of plan.json, which lists the devices, releases and rules of a rollout before the rollout begins."""

from __future__ import annotations

from pydantic import Field

from fleet.devices.eligibility import ReleaseInfo
from fleet.devices.messages import Count
from fleet.documents import Document
from fleet.inventory.rollout_policy import RolloutPolicy


class PlannedDevice(Document):
    """A device and the release that it is to run. Plans of earlier program versions contain only the release."""

    release: str = Field(description="Release that the inventory declares, as NAME@VERSION.")
    type: str = Field(default="", description="Device type.")
    wave: int = Field(default=0, description="Number of the device's wave in the inventory; wave 0 has the canaries.")
    groups: list[str] = Field(default=[], description="Inventory groups of the device.")


class PendingRollback(Document):
    """A device's rollback that an earlier rollout could not complete."""

    rollout: str = Field(description="Id of the rollout that failed.")
    left: str = Field(description="Release that failed, which the device may still run.")
    to: str | None = Field(description="Release that the device ran before that rollout.")


class AbandonedRollout(Document):
    """An unfinished rollout that the new rollout replaces."""

    rollout: str = Field(description="Id of the abandoned rollout.")
    why: str = Field(description="Reason why that rollout cannot be resumed.")


class Refusal(Document):
    """The error that prevents all updates to new releases. Pending rollbacks are performed nevertheless."""

    error: str = Field(description="Name of the error's class.")
    exit_code: int = Field(description="Exit code of the error.")
    where: str = Field(description="File, field or operation that the error concerns.")
    found: str = Field(description="What was found.")
    expected: str = Field(description="What was expected.")
    remedy: str = Field(description="How to fix the problem.")


class RolloutPlan(Document):
    """The output of `fleet wave plan` and the content of plan.json. Plans of earlier versions lack some fields."""

    fleet: str = Field(description="Name of the fleet.")
    inventory: str | None = Field(default=None, description="Path of the inventory.")
    only: list[str] | None = Field(default=None, description="Devices that --limit selects; null means all.")
    commit: str | None = Field(default=None, description="Git commit of the inventory.")
    by: str | None = Field(default=None, description="User who began the rollout.")
    development: bool = Field(default=False, description="Whether releases signed with development keys are accepted.")
    outside_window: bool = Field(default=False, description="Whether the maintenance window is ignored.")
    size: Count = Field(description="Number of devices in the fleet.")
    again: bool = Field(default=False, description="Whether a release that failed before may be tried again.")
    asked: str = Field(default="", description="Time of the plan, ISO 8601. Devices are queried after this time.")
    repository: str = Field(default="", description="Location of the repository of releases.")
    rules: RolloutPolicy = Field(description="Rollout policy of the fleet.")
    devices: dict[str, PlannedDevice] = Field(description="Devices that the rollout may update, by name.")
    others: dict[str, PlannedDevice] = Field(default={}, description="Devices that --limit leaves out, by name.")
    releases: dict[str, ReleaseInfo] = Field(description="Information about the releases, by NAME@VERSION.")
    proven: list[str] = Field(default=[], description="Releases that passed a wave of an earlier rollout.")
    resumes: str | None = Field(default=None, description="Id of the unfinished rollout that is resumed.")
    gives_up: AbandonedRollout | None = Field(default=None, description="Unfinished rollout that is abandoned.")
    pending: dict[str, PendingRollback] = Field(
        default={}, description="Pending rollbacks to perform first, by device name."
    )
    refused: Refusal | None = Field(default=None, description="Error that allows only pending rollbacks.")
    warnings: list[str] = Field(default=[], description="Warnings for the operator.")
