"""Parse the output of the steps of `fleet wave`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from fleet.documents import Document


class StepResult(Document):
    """The result of a step, with the fields that a run needs. Undeclared fields are kept and passed to other steps."""

    command: str = Field(description="Name of the command, such as `wave open`.")


class PlannedDevice(Document):
    """A device of the plan."""

    release: str = Field(description="Release that the device is to run.")


class PlanResult(StepResult):
    """The result of `fleet wave plan`."""

    devices: Mapping[str, PlannedDevice] = Field(description="Devices that the plan covers.")
    pending: Mapping[str, Any] = Field(description="Pending rollbacks, by device.")


class PreflightResult(StepResult):
    """The result of `fleet wave preflight`."""

    status: str = Field(description="`ready`, `resumed`, `unchanged`, `passed` or `refused`.")
    reason: str = Field(default="", description="Reason for the status.")
    table: list[str] = Field(default=[], description="Lines for the operator.")
    go: bool = Field(default=False, description="Whether the run continues with waves or rollbacks.")
    record: str | None = Field(default=None, description="Folder of the rollout's record.")
    payload: str | None = Field(default=None, alias="push", description="Archive with the payload for devices.")
    order: list[str] = Field(default=[], description="Devices in the order of their waves.")
    serial: list[int] = Field(default=[], description="Number of devices of each wave.")
    changed: list[str] = Field(
        default=[], alias="touched", description="Devices that the rollout may have changed already."
    )


class WaveOpened(StepResult):
    """The result of `fleet wave open`."""

    wave: str = Field(description="Name of the wave.")
    go: bool = Field(description="Whether the wave may start.")
    reason: str = Field(default="", description="Reason why the wave may not start.")
    bake_s: float = Field(default=0.0, description="Duration of the bake in seconds.")
    checks: int = Field(default=0, alias="looks", description="Largest number of checks during the bake.")
    is_new_payload: bool = Field(default=False, alias="packed", description="Whether the payload has changed.")
    control_group: list[str] = Field(default=[], alias="rest", description="Devices of the control group.")


class BakeChecked(StepResult):
    """The result of `fleet wave bake`."""

    again: bool = Field(description="Whether another check follows.")


class WaveJudged(StepResult):
    """The result of `fleet wave judge`."""

    wave: str = Field(description="Name of the wave.")
    status: str = Field(description="`pass`, `fail` or `inconclusive`.")
    reason: str = Field(description="Reason for the verdict.")


class RollbacksDecided(StepResult):
    """The result of `fleet wave settle`."""

    rollbacks: Mapping[str, Any] = Field(
        default={},
        alias="back",
        description="Devices that have to roll back, each with the release to return to and the reason.",
    )


class RolloutClosed(StepResult):
    """The result of `fleet wave close`."""

    id: str | None = Field(description="Id of the rollout.")
    status: str = Field(description="Outcome of the rollout.")
    reason: str = Field(description="Reason for the outcome.")
    table: list[str] = Field(description="Lines for the operator.")
    record: str | None = Field(default=None, description="Folder of the rollout's record.")


class ManualRollbackBegun(StepResult):
    """The result of `fleet wave recall`."""

    releases: list[str] | None = Field(
        alias="brought", description="Releases to roll back from; null means any release."
    )


class ManualRollbackFinished(StepResult):
    """The result of `fleet wave recalled`."""

    failed: list[str] = Field(description="Devices that did not roll back.")
    table: list[str] = Field(description="Lines for the operator.")


@dataclass
class StepResults:
    """The latest results of the steps that a run reports. Each is None until its step has run."""

    preflight: PreflightResult | None = None
    opened: WaveOpened | None = None
    closed: RolloutClosed | None = None
    manual_rollback: ManualRollbackFinished | None = None
