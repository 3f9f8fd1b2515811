"""The results of a rollout's steps, as `fleet wave` prints them for the playbooks.

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
    """The result of one step."""

    def as_json(self) -> dict[str, object]:
        """Return the result as `fleet wave` prints it."""
        return asdict(self)


@dataclass(frozen=True)
class PreflightResult(StepResult):
    """The decision whether a rollout begins or goes on, and with which waves.

    Attributes:
        go: there are devices to change.
        status: why it goes on or not.
        reason: explains the status.
        unfit: devices that cannot take their release, each with the reason.
        record: the folder of the record; None where no rollout began.
        order: the devices that change, in the order of the waves.
        serial: the size of each wave, as Ansible's `serial` takes it.
        touched: devices that may run the new release already.
        push: the file with the payload.
        table: lines for the terminal.
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
        go: the wave begins.
        wave: its name.
        reason: why it does not begin.
        rest: the control group, devices to compare the wave with.
        bake_s: how long the wave is watched, in seconds; None where it does not begin.
        packed: the payload was packed again.
    """

    go: bool
    wave: str
    reason: str
    rest: list[str]
    bake_s: float | None
    packed: bool

    def as_json(self) -> dict[str, object]:
        """Return the decision; `bake_s` is left out of a refusal."""
        fields = asdict(self)
        return fields if self.go else {name: value for name, value in fields.items() if name != "bake_s"}


class BakeLook(Document):
    """The result of one look at a wave, which the next look continues from."""

    wave: str = Field(description="Name of the wave.")
    again: bool = Field(description="Whether the wave is looked at once more before its verdict.")
    wait_s: float = Field(description="Pause until the next look or the verdict, in seconds.")
    began_s: float = Field(description="Monotonic time of the first look, in seconds.")
    until_s: float = Field(description="Monotonic time at which the pause ends, in seconds.")
    silent: list[str] = Field(description="Devices that did not respond to this look.")


@dataclass(frozen=True)
class WaveVerdict(StepResult):
    """The verdict on a wave, with its reason in one line."""

    wave: str
    status: WaveResult
    reason: str


@dataclass(frozen=True)
class RollbackDecision(StepResult):
    """The devices that have to roll back, by name, and whether the rollout has failed."""

    back: dict[str, RollbackOrder]
    failed: bool


@dataclass(frozen=True)
class ClosedRollout(StepResult):
    """The end or pause of a rollout, with lines for the terminal and the folder of its record."""

    id: str
    status: str
    reason: str
    table: list[str]
    record: str


@dataclass(frozen=True)
class ManualRollbackStart(StepResult):
    """The scope of a manual rollback.

    Attributes:
        given_up: id of the unfinished rollout that was abandoned, or None.
        brought: the releases that devices roll back from; None: every device rolls back, whatever it runs.
        warnings: for the operator.
    """

    given_up: str | None
    brought: list[str] | None
    warnings: list[str]


@dataclass(frozen=True)
class ManualRollbackEnd(StepResult):
    """The result of a manual rollback: lines for the terminal, and the devices that did not roll back."""

    table: list[str]
    failed: list[str]
