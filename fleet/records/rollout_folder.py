"""A rollout on disk: what was planned, how far it came, and whose it is.

    rollouts/<fleet>/
        lock                    held while a rollout begins, is taken up or is given up
        audit.jsonl             devices that were called back by hand
        metadata.tar            the repository's metadata for playbooks/rotate-keys.yml
        <id>/plan.json          what was decided at the start; never changed
        <id>/state.json         how far it came; replaced durably after every step. The first is written last of all: a
                                folder without one was never begun, and the next that begins removes it
        <id>/audit.jsonl        one line per action, appended (fleet/audit_log.py)
        <id>/push.tar           what devices are brought, while it has not ended (fleet/rollout/payload.py)
        <id>/reports/           what the devices said
        <id>/report.html, .md   for people

A rollout belongs to the ansible-playbook process that began it. When that process has ended without closing it, the
next run takes it up where it stopped: devices are asked what they run, so that nothing that was done is done again.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from edge_agent.core import durable

from fleet import locks
from fleet.errors import BusyError, NoReleaseError
from fleet.records import record_files
from fleet.records.record_files import SCHEMA_VERSION
from fleet.records.state import RolloutState, owner

ROLLOUTS = Path(__file__).resolve().parents[2] / "rollouts"  # beside the playbooks, which say the same
LOCK_S = 30.0
BEFORE = "reports/before.json"  # what devices said before the first of them changed
PUSH = "push.tar"  # what devices are brought: packed when it begins or goes on, removed when it has ended
STAMP = "%Y%m%dT%H%M%SZ"
ID = re.compile(r"(\d{8}T\d{6}Z)(-[0-9a-f]{1,8})?")

Json = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """One rollout's folder."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def began(self) -> str | None:
        """When, as audit.now writes it."""
        at = _began(self.id)
        return f"{at.isoformat()}Z" if at else None

    @cached_property
    def plan(self) -> Json:
        """What plan.json holds, which never changes. Raises ConfigurationError."""
        return record_files.plan(self.folder / "plan.json")

    @property
    def before(self) -> Json:
        """What devices said before the first of them changed. Raises ConfigurationError."""
        return record_files.reports(self.folder / BEFORE)

    def load(self) -> RolloutState:
        """Raises ConfigurationError for a state that this program did not write."""
        return record_files.state(self.folder / "state.json")

    def match(self) -> None:
        """Whether the state is of the plan's devices and releases. Raises ConfigurationError."""
        planned = {name: each["release"] for name, each in self.plan["devices"].items()}
        came = {name: device.release for name, device in self.load().devices.items()}
        for name in sorted({*planned, *came}):
            plan, state = planned.get(name, "nothing"), came.get(name, "nothing")
            if plan != state:
                raise record_files.damaged(
                    self.folder / "plan.json", f"devices.{name}: found {plan}; state.json has {state}"
                )

    def save(self, state: RolloutState) -> None:
        content = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(state)}, indent=2, sort_keys=True) + "\n"
        durable.write_file(self.folder / "state.json", content.encode())


@contextlib.contextmanager
def locked(fleet: str, root: Path = ROLLOUTS) -> Iterator[None]:
    """Hold the fleet's lock while its files are read and changed. Raises BusyError."""
    folder = root / fleet
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    busy = BusyError(str(path), "held", f"free within {LOCK_S:g} s", "call again")
    with locks.exclusive(path, busy, LOCK_S):
        yield


def rollouts(fleet: str, root: Path = ROLLOUTS) -> list[Record]:
    """Every rollout of a fleet, the oldest first. A folder of another name, such as a copy of one, is none."""
    return [Record(path.parent) for path in sorted((root / fleet).glob("*/state.json")) if _began(path.parent.name)]


def find(fleet: str, rollout: str | None = None, root: Path = ROLLOUTS) -> Record:
    """The named rollout, or the latest. Raises NoReleaseError."""
    known = rollouts(fleet, root)
    chosen = [each for each in known if rollout in (None, each.id)]
    if not chosen:
        there = ", ".join(each.id for each in known[-3:]) or "none"
        raise NoReleaseError(f"{root / fleet}", f"no rollout {rollout or ''}".strip(), f"one of: {there}", "begin one")
    return chosen[-1]


def unfinished(fleet: str, root: Path = ROLLOUTS, elsewhere: bool = True) -> Record | None:
    """The rollout that was neither passed nor given up. Raises BusyError while its process runs.

    `elsewhere`: of a process on another machine nothing is known, and it may run; else it is taken for gone.
    """
    known = rollouts(fleet, root)
    if not known:
        return None
    state = known[-1].load()
    if state.status not in ("running", "paused"):
        return None
    here = state.owner.host == socket.gethostname()
    if state.owner != owner() and state.owner.is_alive() and (here or elsewhere):
        raise BusyError(
            f"fleet {fleet}",
            f"rollout {known[-1].id} runs: process {state.owner.pid} on {state.owner.host}",
            "one rollout per fleet at a time",
            "wait until it ends, or end that process: what it began is taken up by the next run"
            + ("" if here else "; if that machine is gone: fleet give-up"),
        )
    return known[-1]


def begin(
    fleet: str,
    plan: dict[str, Any],
    state: RolloutState,
    root: Path = ROLLOUTS,
    fill: Callable[[Record], None] = lambda _: None,
) -> Record:
    """Write a new rollout: the plan, what `fill` adds, and state.json last. The caller holds the lock.

    Leaves nothing where it fails. Raises what `fill` raises, and OSError.
    """
    _remove_unbegun(root / fleet)
    commit = str(plan.get("commit") or "")[:8]
    record = Record(root / fleet / (_next_stamp(fleet, root) + (f"-{commit}" if commit else "")))
    content = json.dumps({"schema_version": SCHEMA_VERSION, **plan}, indent=2, sort_keys=True) + "\n"
    try:
        (record.folder / "reports").mkdir(parents=True)
        durable.write_file(record.folder / "plan.json", content.encode())
        fill(record)
        record.save(state)
    except BaseException:
        shutil.rmtree(record.folder, ignore_errors=True)  # what went wrong is told; the next one removes the rest
        raise
    durable.sync_directory(record.folder.parent)
    return record


def _next_stamp(fleet: str, root: Path) -> str:
    """Now, or later than every rollout's there, also where the clock was set back: the latest is the last by name."""
    known = [_began(each.id) for each in rollouts(fleet, root)]
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    return max([now, *(at + timedelta(seconds=1) for at in known if at)]).strftime(STAMP)


def _began(name: str) -> datetime | None:
    """UTC, without a zone; None where it is no rollout's name."""
    try:
        found = ID.fullmatch(name)
        return datetime.strptime(found[1], STAMP) if found else None
    except ValueError:  # no such day
        return None


def _remove_unbegun(folder: Path) -> None:
    """What was killed while it began: no device had been changed."""
    for each in folder.iterdir() if folder.is_dir() else ():
        if _began(each.name) and each.is_dir() and not (each / "state.json").exists():
            shutil.rmtree(each)


def content(value: Any) -> bytes:
    """A file of a record: the same value, the same bytes."""
    return (json.dumps(value, sort_keys=True) + "\n").encode()
