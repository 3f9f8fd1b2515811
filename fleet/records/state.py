"""The types of state.json: a rollout's progress, its devices, its waves, and the process that controls it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import ConfigDict, Field, with_config

from fleet.documents import Document

# Unknown fields of a later program version are refused, because this version would lose them when it saves the state.
NO_OTHER_FIELDS = ConfigDict(extra="forbid")

Status = Literal["running", "paused", "passed", "failed", "given up"]
WaveStatus = Literal["waiting", "open", "pass", "fail", "inconclusive"]
BudgetCharge = Literal["", "failed", "unreachable"]
Outcome = Literal["planned", "unfit", "ok", "failed", "unreachable", "back", "pending"]


@with_config(NO_OTHER_FIELDS)
@dataclass(frozen=True)
class Owner:
    """The process that controls a rollout. The process id 0 means that no process controls it.

    The start time is recorded too, because a later process may get the same id.

    Attributes:
        host: The machine on which the process runs.
        pid: The process id.
        started: The start time in seconds: since boot on Linux, since 1970 on other systems.
        boot: The identifier of the machine's current boot; empty if the system has none.
    """

    host: str
    pid: int
    started: float
    boot: str = ""

    def is_alive(self) -> bool:
        """Return whether the process is running.

        A process on another machine counts as running, because this machine cannot check it.
        """
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
    """Return the process of this machine with this id. Raises psutil.Error if it does not exist."""
    return Owner(socket.gethostname(), pid, _start_time(pid), _boot_id())


def _start_time(pid: int) -> float:
    """Return the start time of a process: seconds since boot on Linux, or since 1970 on other systems.

    On Linux, the value is field 22 of /proc/PID/stat, see proc(5). psutil would report wall-clock time, which
    changes if the clock is set while the process runs.
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
    """Return the ansible-playbook process that started this program; if there is none, the parent process."""
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
    """The result of one check of a wave, as state.json records it."""

    name: str = Field(description="Name of the check, such as latency.")
    status: str = Field(description="Result of the check.")
    reason: str = Field(description="Explanation with the measured value and the limit.")


class RecordedVerdict(Document):
    """The verdict on a wave, as state.json records it."""

    reason: str = Field(description="Reason for the verdict, in one line.")
    checks: list[RecordedCheck] = Field(description="Results of all checks of the wave.")


class EarlyFailure(Document):
    """The reason why a wave failed before its bake ended."""

    reason: str = Field(description="Why the wave failed.")
    devices: dict[str, str] = Field(description="Devices that failed, each with the reason.")


@with_config(NO_OTHER_FIELDS)
@dataclass(frozen=True)
class DeviceState:
    """The state of one device in a rollout.

    Attributes:
        wave: The name of the device's wave; empty if the device is in no wave.
        release: The release that the device is to run.
        was: The release that the device ran before this rollout; None if it ran none.
        outcome: The outcome for the device so far. `pending` means that the device could not roll back. The fleet's
            next rollout rolls this device back first (pending_rollbacks.py).
        reason: An explanation of the outcome.
        touched: Whether the rollout may have changed the device.
        spent: The budget that the device counts against, `failed` or `unreachable`; empty if it counts against none.
            A rollback does not change this value.
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
        name: The wave's name.
        devices: The names of the wave's devices.
        approve: Whether the wave needs an approval.
        approved_by: The user who approved the wave; None if no user has approved it.
        status: The wave's status.
        opened: The time at which the wave began; None if it has not begun.
        judged: The time at which the wave was judged; None if it has not been judged.
        verdict: The verdict on the wave; None if it has not been judged.
        lost: Why the wave failed before its bake ended; None if it did not fail early.
        why: Why the wave needs an approval that the rollout policy does not require; empty if the policy requires the
            approval, or if none is needed.
        canary: Whether this is a canary wave, in which no device may fail.
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
        status: The rollout's status.
        owner: The process that controls the rollout.
        waves: The waves, in their order.
        devices: The states of the devices, by name.
        reason: An explanation of the status.
        ended: The time at which the rollout ended; None if it has not.
        outside_window: Whether the operator chose to ignore the maintenance window when the rollout began or was last
            resumed.
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
        """Return True if a wave has failed. If so, every device that the rollout may have changed has to roll back."""
        return any(wave.status == "fail" for wave in self.waves)

    def with_wave(self, name: str, **changed: Any) -> RolloutState:
        """Return a copy of the state in which the given fields of a wave are changed."""
        waves = tuple(replace(wave, **changed) if wave.name == name else wave for wave in self.waves)
        return replace(self, waves=waves)

    def with_device(self, name: str, **changed: Any) -> RolloutState:
        """Return a copy of the state in which the given fields of a device are changed."""
        return replace(self, devices={**self.devices, name: replace(self.devices[name], **changed)})
