"""How far a rollout came, as its record says it: its devices, its waves, and whose it is."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import ConfigDict, with_config

OURS = ConfigDict(extra="forbid")  # what a later version adds is refused: saved by this one, it would be lost

Status = Literal["running", "paused", "passed", "failed", "given up"]
WaveStatus = Literal["waiting", "open", "pass", "fail", "inconclusive"]
Spent = Literal["", "failed", "unreachable"]
Outcome = Literal["planned", "unfit", "ok", "failed", "unreachable", "back", "pending"]


@with_config(OURS)
@dataclass(frozen=True)
class Owner:
    """A process, told from a later one with the same number by when it started.

    `started`: seconds, of a clock that nobody sets where the machine has one; `boot`: which start of the machine these
    count from. Process 0 is nobody.
    """

    host: str
    pid: int
    started: float
    boot: str = ""

    def is_alive(self) -> bool:
        """Whether it still runs. Of another machine nothing is known: it may."""
        if self.pid == NOBODY.pid:
            return False
        if self.host != socket.gethostname():
            return True
        try:
            return self.boot == _boot() and abs(_started(self.pid) - self.started) < 1.0
        except psutil.Error:
            return False


NOBODY = Owner("", 0, 0.0)


def owner_of(pid: int) -> Owner:
    """That process. Raises psutil.Error."""
    return Owner(socket.gethostname(), pid, _started(pid), _boot())


def _started(pid: int) -> float:
    """proc(5), field 22 of stat; psutil's is of the wall clock, which may be set while the process runs."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(told.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:  # no such process, or no Linux
        return float(psutil.Process(pid).create_time())


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def owner() -> Owner:
    """The ansible-playbook that called this program, or else whoever did."""
    parents = psutil.Process().parents()
    playbooks = [each for each in parents if any(Path(part).name == "ansible-playbook" for part in _command(each))]
    chosen = playbooks[-1] if playbooks else (parents[0] if parents else psutil.Process())
    return owner_of(chosen.pid)


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline()[:3])
    except psutil.Error:
        return []


@with_config(OURS)
@dataclass(frozen=True)
class DeviceState:
    """`was`: the release that it ran before this rollout touched it. `touched`: it may run the new one.

    Outcome `pending`: it could not be called back; the next run does (pending_rollbacks.py). `spent`: what it took of
    the budget, also after it has gone back.
    """

    wave: str
    release: str
    was: str | None = None
    outcome: Outcome = "planned"
    reason: str = ""
    touched: bool = False
    spent: Spent = ""


@with_config(OURS)
@dataclass(frozen=True)
class WaveState:
    """`why` it asks for approval, where no rule does. `canary`: none of its devices may fail. `lost`: {"reason",
    "devices": name -> why} where it failed while it was watched.
    """

    name: str
    devices: tuple[str, ...]
    approve: bool = False
    approved_by: str | None = None
    status: WaveStatus = "waiting"
    opened: str | None = None
    judged: str | None = None
    verdict: dict[str, Any] | None = None
    lost: dict[str, Any] | None = None
    why: str = ""
    canary: bool = True


@dataclass(frozen=True)
class RolloutState:
    """`outside_window`: whoever began it, or took it up last, said that the maintenance window does not count."""

    status: Status
    owner: Owner
    waves: tuple[WaveState, ...]
    devices: dict[str, DeviceState] = field(default_factory=dict)
    reason: str = ""
    ended: str | None = None
    outside_window: bool = False

    def wave(self, name: str) -> WaveState:
        return next(wave for wave in self.waves if wave.name == name)

    @property
    def has_failed(self) -> bool:
        """Whether a wave has: from then on all that was touched has to go back."""
        return any(wave.status == "fail" for wave in self.waves)

    def with_wave(self, name: str, **changed: Any) -> RolloutState:
        waves = tuple(replace(wave, **changed) if wave.name == name else wave for wave in self.waves)
        return replace(self, waves=waves)

    def with_device(self, name: str, **changed: Any) -> RolloutState:
        return replace(self, devices={**self.devices, name: replace(self.devices[name], **changed)})
