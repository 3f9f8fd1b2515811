"""The types of state.json: how far a rollout came, its devices, its waves, and the process that owns it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import ConfigDict, Field, with_config

from fleet.documents import Document

# Fields of a later version are refused: this version would lose them when it saves the state.
NO_OTHER_FIELDS = ConfigDict(extra="forbid")

Status = Literal["running", "paused", "passed", "failed", "given up"]
WaveStatus = Literal["waiting", "open", "pass", "fail", "inconclusive"]
BudgetCharge = Literal["", "failed", "unreachable"]
Outcome = Literal["planned", "unfit", "ok", "failed", "unreachable", "back", "pending"]


@with_config(NO_OTHER_FIELDS)
@dataclass(frozen=True)
class Owner:
    """A process, distinguished by its start time from a later process with the same id. Process 0 does not exist.

    Attributes:
        host: the machine on which the process runs.
        pid: the process id.
        started: start time in seconds, on a clock that cannot be set where the machine has one.
        boot: identifier of the machine's boot, from which `started` counts.
    """

    host: str
    pid: int
    started: float
    boot: str = ""

    def is_alive(self) -> bool:
        """Return whether the process still runs. A process on another machine cannot be checked: it may run."""
        if self.pid == NOBODY.pid:
            return False
        if self.host != socket.gethostname():
            return True
        try:
            return self.boot == _boot_id() and abs(_start_time(self.pid) - self.started) < 1.0
        except psutil.Error:
            return False


NOBODY = Owner("", 0, 0.0)


def owner_of(pid: int) -> Owner:
    """Return the process with this id. Raises psutil.Error."""
    return Owner(socket.gethostname(), pid, _start_time(pid), _boot_id())


def _start_time(pid: int) -> float:
    """Return the start time of a process in seconds: field 22 of its stat file, see proc(5).

    psutil reports the wall clock, which may be set while the process runs.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:  # the process does not exist, or the system is not Linux
        return float(psutil.Process(pid).create_time())


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def owner() -> Owner:
    """Return the ansible-playbook process that called this program, or else the parent process."""
    parents = psutil.Process().parents()
    playbooks = [each for each in parents if any(Path(part).name == "ansible-playbook" for part in _command_line(each))]
    chosen = playbooks[-1] if playbooks else (parents[0] if parents else psutil.Process())
    return owner_of(chosen.pid)


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline()[:3])
    except psutil.Error:
        return []


class RecordedCheck(Document):
    """A check of a wave's verdict."""

    name: str = Field(description="Name of the check, such as latency.")
    status: str = Field(description="Result of the check.")
    reason: str = Field(description="Measured value and limit, for people.")


class RecordedVerdict(Document):
    """The verdict on a wave, as it was recorded."""

    reason: str = Field(description="Why the verdict is what it is, in one line.")
    checks: list[RecordedCheck] = Field(description="Every check of the wave.")


class EarlyFailure(Document):
    """The reason why a wave failed before its bake ended."""

    reason: str = Field(description="Why the wave failed.")
    devices: dict[str, str] = Field(description="Devices that failed, each with the reason.")


@with_config(NO_OTHER_FIELDS)
@dataclass(frozen=True)
class DeviceState:
    """The state of one device in a rollout.

    Attributes:
        wave: its wave; empty where it takes no part.
        release: the release that it is to run.
        was: the release that it ran before this rollout touched it.
        outcome: `pending` where its rollback failed: the next run makes it (pending_rollbacks.py).
        reason: explains the outcome.
        touched: the device may run the new release.
        spent: the device's charge to the budget, which stays after its rollback.
    """

    wave: str
    release: str
    was: str | None = None
    outcome: Outcome = "planned"
    reason: str = ""
    touched: bool = False
    spent: BudgetCharge = ""


@with_config(NO_OTHER_FIELDS)
@dataclass(frozen=True)
class WaveState:
    """The state of one wave.

    Attributes:
        name: as the rollout policy names it.
        devices: names of its devices.
        approve: it needs an approval.
        approved_by: the user who approved it.
        status: how far it came.
        opened: when it began.
        judged: when its verdict was given.
        verdict: the verdict on it.
        lost: why it failed before its bake ended.
        why: the reason for an approval that the rollout policy does not ask for.
        canary: none of its devices may fail.
    """

    name: str
    devices: tuple[str, ...]
    approve: bool = False
    approved_by: str | None = None
    status: WaveStatus = "waiting"
    opened: str | None = None
    judged: str | None = None
    verdict: RecordedVerdict | None = None
    lost: EarlyFailure | None = None
    why: str = ""
    canary: bool = True


@dataclass(frozen=True)
class RolloutState:
    """The state of a rollout.

    Attributes:
        status: how far it came.
        owner: the process that works on it.
        waves: in their order.
        devices: by name.
        reason: explains the status.
        ended: when it ended.
        outside_window: the user who began or last resumed it ignores the maintenance window.
    """

    status: Status
    owner: Owner
    waves: tuple[WaveState, ...]
    devices: dict[str, DeviceState] = field(default_factory=dict)
    reason: str = ""
    ended: str | None = None
    outside_window: bool = False

    def wave(self, name: str) -> WaveState:
        """Return the wave with this name."""
        return next(wave for wave in self.waves if wave.name == name)

    @property
    def has_failed(self) -> bool:
        """True where a wave has failed. From then on every touched device has to roll back."""
        return any(wave.status == "fail" for wave in self.waves)

    def with_wave(self, name: str, **changed: Any) -> RolloutState:
        """Return the state with these fields of a wave changed."""
        waves = tuple(replace(wave, **changed) if wave.name == name else wave for wave in self.waves)
        return replace(self, waves=waves)

    def with_device(self, name: str, **changed: Any) -> RolloutState:
        """Return the state with these fields of a device changed."""
        return replace(self, devices={**self.devices, name: replace(self.devices[name], **changed)})
