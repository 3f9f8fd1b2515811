"""The results of a rollout's steps, in the form that `fleet wave` prints for the playbooks.

The names of the fields are the keys of the printed JSON (fleet/cli/output.schema.json).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import Field

from fleet.documents import Document
from fleet.rollout.decisions import RollbackOrder
from fleet.rollout.verdict import WaveResult

PreflightStatus = Literal["refused", "ready", "unchanged", "resumed"]


@dataclass(frozen=True)
class StepResult:
    """The result of one step of a rollout."""

    def as_json(self) -> dict[str, object]:
        """Return the result in the form that `fleet wave` prints as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PreflightResult(StepResult):
    """The decision whether a rollout begins or resumes, and with which waves.

    Attributes:
        go: Whether the playbook continues.
        status: The result of the preflight: refused, ready to begin, nothing to change, or resumed.
        reason: An explanation of the status.
        unfit: Devices that cannot run their release, each with the reason.
        record: The folder of the record; None if no rollout was begun.
        order: The devices to update, in the order of the waves.
        serial: The number of devices in each wave, as a value for Ansible's `serial`.
        touched: Devices that could already be running the new release.
        push: The file that contains the payload; None if no rollout was begun.
        table: Lines for the terminal.
    """

    go: bool
    status: PreflightStatus
    reason: str
    unfit: dict[str, str]
    record: str | None
    order: list[str]
    serial: list[int]
    touched: list[str]
    push: str | None
    table: list[str]


@dataclass(frozen=True)
class WaveOpening(StepResult):
    """The decision whether a wave may begin.

    Attributes:
        go: Whether the wave begins.
        wave: The wave's name.
        reason: Why the wave does not begin; empty if it begins.
        rest: The devices of the control group, with which the wave is compared.
        bake_s: How long the wave is observed, in seconds; None if the wave does not begin.
        packed: Whether the payload was packed again.
    """

    go: bool
    wave: str
    reason: str
    rest: list[str]
    bake_s: float | None
    packed: bool

    def as_json(self) -> dict[str, object]:
        """Return the decision in the form that `fleet wave` prints as JSON.

        `bake_s` is omitted if the wave does not begin.
        """
        fields = asdict(self)
        return fields if self.go else {name: value for name, value in fields.items() if name != "bake_s"}


class BakeLook(Document):
    """The result of one check of a wave during its bake. The next check receives this result as input."""

    wave: str = Field(description="Name of the wave.")
    again: bool = Field(description="Whether the wave is checked once more before its verdict.")
    wait_s: float = Field(description="Pause until the next check or the verdict, in seconds.")
    began_s: float = Field(description="Monotonic time of the first check, in seconds.")
    until_s: float = Field(description="Monotonic time at which the pause ends, in seconds.")
    silent: list[str] = Field(description="Devices that did not respond to this check.")


@dataclass(frozen=True)
class WaveVerdict(StepResult):
    """The verdict on a wave, with its reason in one line."""

    wave: str
    status: WaveResult
    reason: str


@dataclass(frozen=True)
class RollbackDecision(StepResult):
    """The rollback order for each device that has to roll back, and whether the rollout has failed."""

    back: dict[str, RollbackOrder]
    failed: bool


@dataclass(frozen=True)
class ClosedRollout(StepResult):
    """The status in which a rollout ended or paused, with the reason and with lines for the terminal.

    `record` is the folder of the rollout's record.
    """

    id: str
    status: str
    reason: str
    table: list[str]
    record: str


@dataclass(frozen=True)
class ManualRollbackStart(StepResult):
    """The result of the first step of a manual rollback: the releases from which devices roll back.

    Attributes:
        given_up: The id of the unfinished rollout that was abandoned; None if there was none.
        brought: The releases from which devices roll back; None if every device rolls back.
        warnings: Warnings for the operator.
    """

    given_up: str | None
    brought: list[str] | None
    warnings: list[str]


@dataclass(frozen=True)
class ManualRollbackEnd(StepResult):
    """The result of a manual rollback: lines for the terminal, and the devices that did not roll back."""

    table: list[str]
    failed: list[str]
