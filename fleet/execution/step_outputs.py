"""Define typed models of the JSON that the steps of `fleet wave` print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from fleet.documents import Document


class StepResult(Document):
    """The result of a step of `fleet wave`. Only the fields that the package `execution` needs are declared.

    Undeclared fields are kept, and are passed to other steps.
    """

    command: str = Field(description="Name of the command, such as `wave open`.")


class PlannedDevice(Document):
    """A device in the plan of a rollout."""

    release: str = Field(description="Release that the device is to run.")


class PlanResult(StepResult):
    """The result of `fleet wave plan`, which plans which device is to run which release."""

    devices: Mapping[str, PlannedDevice] = Field(description="Devices that the plan covers.")
    pending: Mapping[str, Any] = Field(description="Pending rollbacks, by device.")


class PreflightResult(StepResult):
    """The result of `fleet wave preflight`, which decides which devices are updated in which waves."""

    status: str = Field(description="`ready`, `resumed`, `unchanged`, `passed` or `refused`.")
    reason: str = Field(default="", description="Reason for the status.")
    table: list[str] = Field(default=[], description="Lines for the operator.")
    go: bool = Field(default=False, description="Whether the rollout continues with waves or rollbacks.")
    record: str | None = Field(default=None, description="Folder of the rollout's record.")
    payload: str | None = Field(default=None, alias="push", description="Archive with the payload for devices.")
    order: list[str] = Field(default=[], description="Devices in the order of their waves.")
    serial: list[int] = Field(default=[], description="Number of devices in each wave, in the order of the waves.")
    changed: list[str] = Field(
        default=[], alias="touched", description="Devices that the rollout may have changed already."
    )


class WaveOpened(StepResult):
    """The result of `fleet wave open`, which decides whether a wave may begin."""

    wave: str = Field(description="Name of the wave.")
    go: bool = Field(description="Whether the wave may start.")
    reason: str = Field(default="", description="Reason why the wave may not start.")
    bake_s: float = Field(default=0.0, description="Duration of the bake in seconds.")
    checks: int = Field(default=0, alias="looks", description="Maximum number of checks during the bake.")
    is_new_payload: bool = Field(default=False, alias="packed", description="Whether the payload was packed again.")
    control_group: list[str] = Field(default=[], alias="rest", description="Devices of the control group.")


class BakeChecked(StepResult):
    """The result of `fleet wave bake`, which checks during the bake whether a wave has failed already."""

    again: bool = Field(description="Whether another check follows.")


class WaveJudged(StepResult):
    """The result of `fleet wave judge`, which computes the verdict on a wave."""

    wave: str = Field(description="Name of the wave.")
    status: str = Field(description="`pass`, `fail` or `inconclusive`.")
    reason: str = Field(description="Reason for the verdict.")


class RollbacksDecided(StepResult):
    """The result of `fleet wave settle`, which decides which devices roll back at the end of a rollout."""

    rollbacks: Mapping[str, Any] = Field(
        default={},
        alias="back",
        description="Devices that have to roll back, each with the release to return to and the reason.",
    )


class RolloutClosed(StepResult):
    """The result of `fleet wave close`, which ends a rollout and writes its report."""

    id: str | None = Field(description="Id of the rollout.")
    status: str = Field(description="Outcome of the rollout.")
    reason: str = Field(description="Reason for the outcome.")
    table: list[str] = Field(description="Lines for the operator.")
    record: str | None = Field(default=None, description="Folder of the rollout's record.")


class ManualRollbackBegun(StepResult):
    """The result of `fleet wave recall`, which prepares a manual rollback."""

    releases: list[str] | None = Field(
        alias="brought", description="Releases that devices must roll back from; null means every release."
    )


class ManualRollbackFinished(StepResult):
    """The result of `fleet wave recalled`, which records a manual rollback."""

    failed: list[str] = Field(description="Devices that did not roll back.")
    table: list[str] = Field(description="Lines for the operator.")


@dataclass
class StepResults:
    """The latest result of each step that `fleet rollout` and `fleet rollback` report.

    A field is None until its step has run.
    """

    preflight: PreflightResult | None = None
    opened: WaveOpened | None = None
    closed: RolloutClosed | None = None
    manual_rollback: ManualRollbackFinished | None = None
