"""Read the input of a step of `fleet wave` from stdin into a typed model.

The playbooks pass this input to the step as a JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator

from fleet.devices.messages import AgentStatus, StatusResponse, TaskResult, parse_command, parse_status
from fleet.errors import ConfigurationError
from fleet.records.rollout_plan import RolloutPlan
from fleet.rollout.step_results import BakeLook
from fleet.rollout.verdict_checks import SwitchOutcome

T = TypeVar("T", bound=BaseModel)
PRINTED = ("schema_version", "command")  # fields that `fleet --json` adds to the printed plan


class DeviceNames(BaseModel):
    """The input of `fleet wave open`: the names of the devices of a wave."""

    devices: list[str] = Field(description="Names of the devices.")


class DeviceStatuses(BaseModel):
    """The input of `fleet wave settle` and `fleet wave close`: results of `edge-agent status` on several devices."""

    devices: dict[str, TaskResult] = Field(description="Result of the task that queries the status, by device.")

    def responses(self) -> dict[str, StatusResponse]:
        """Return the response of each device to `edge-agent status`, by device name."""
        return parse_statuses(self.devices)


class PreflightInput(DeviceStatuses):
    """The input of `fleet wave preflight`: the plan of a rollout, and the statuses of the devices in the plan."""

    plan: RolloutPlan = Field(description="The output of `fleet wave plan`.")

    @field_validator("plan", mode="before")
    @classmethod
    def _remove_printed(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: each for name, each in value.items() if name not in PRINTED}


class Switch(BaseModel):
    """The results of `edge-agent deploy`, which switches the devices of a wave to their release."""

    deployed: dict[str, TaskResult] = Field(description="Result of `edge-agent deploy`, by device.")
    trouble: dict[str, object] = Field(
        description="Why the Ansible task itself failed, by device; empty if it did not fail."
    )

    def deploy_outcomes(self) -> dict[str, tuple[SwitchOutcome, str]]:
        """Return the outcome of the switch for each device, with the reason if the device did not switch."""
        return {name: _deploy_outcome(result, self.trouble[name]) for name, result in self.deployed.items()}


class BakeInput(BaseModel):
    """The input of `fleet wave bake`: the deployment results and the statuses of a wave's devices.

    It also contains the result of the previous check during the same bake.
    """

    switched: Switch = Field(description="Results of `edge-agent deploy` on the wave's devices.")
    asked: dict[str, TaskResult] = Field(description="Status of each device; empty at the first check.")
    looked: BakeLook | None = Field(description="Result of the previous check; an empty object at the first check.")

    @field_validator("looked", mode="before")
    @classmethod
    def _no_look(cls, value: object) -> object:
        return value or None

    def statuses(self) -> dict[str, AgentStatus | None]:
        """Return the status of each device of the wave; None for a device that did not respond."""
        return {name: response.status for name, response in parse_statuses(self.asked).items()}


class ControlResult(TaskResult):
    """The result of `edge-agent status` on a device of the control group."""

    item: str = Field(description="Name of the device.")


class JudgeInput(BaseModel):
    """The input of `fleet wave judge`: the deployment results and the statuses of a wave's devices.

    It also contains the statuses of the devices in the control group.
    """

    switched: Switch = Field(description="Results of `edge-agent deploy` on the wave's devices.")
    asked: dict[str, TaskResult] = Field(description="Status of each device of the wave.")
    rest: list[ControlResult] = Field(description="Statuses of the control group's devices.")


class ManualRollbackInput(BaseModel):
    """The input of `fleet wave recalled`: the results of a manual rollback on each device."""

    back: dict[str, TaskResult] = Field(description="Result of `edge-agent rollback`, by device.")
    asked: dict[str, TaskResult] = Field(description="Result of `edge-agent status` after the rollback, by device.")


def parse_statuses(results: Mapping[str, TaskResult]) -> dict[str, StatusResponse]:
    """Parse the results of `edge-agent status` on several devices.

    Return the response of each device, by device name.
    """
    return {name: parse_status(result) for name, result in results.items()}


def _deploy_outcome(result: TaskResult, trouble: object) -> tuple[SwitchOutcome, str]:
    if reason := result.unreachable_reason():
        return "unreachable", reason
    if trouble:
        return "failed", str(trouble)
    if result.succeeded:
        return "ok", ""
    return "failed", parse_command(result).reason


def read_stdin(model: type[T]) -> T:
    """Read the input of a step from stdin. Raises ConfigurationError if the input does not match the model."""
    try:
        return model.model_validate(json.load(sys.stdin))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (ValueError, TypeError) as error:
        problem = f"not a JSON object ({error})"
    raise ConfigurationError(
        "stdin",
        problem,
        "the JSON object that the playbook passes to this step",
        "run `fleet rollout` or `fleet rollback`, which pass this input",
    )
