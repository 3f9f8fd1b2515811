"""Find, begin, lock and save the records of rollouts.

Each rollout has a folder:

    rollouts/<fleet>/
        lock                    held while a rollout begins, is resumed or is abandoned
        audit.jsonl             the audit trail of manual rollbacks
        metadata.tar            the repository's metadata for playbooks/rotate-keys.yml
        <id>/plan.json          the plan made before the rollout began; never changed
        <id>/state.json         the progress, replaced durably after every step. When a rollout begins, this file is
                                written last. If a folder lacks it, the rollout never began, and the next rollout
                                removes the folder
        <id>/audit.jsonl        one line per action, appended (fleet/audit_log.py)
        <id>/push.tar           the payload for devices, deleted when the rollout has ended (fleet/rollout/payload.py)
        <id>/reports/           the reports of the devices
        <id>/report.html, .md   the report for people

A rollout is controlled by the ansible-playbook process that began or resumed it. If that process ends without
closing the rollout, the next run queries the devices and resumes the rollout where it stopped, so that no step is done
twice.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from edge_agent.core import durable

from fleet import documents, locks
from fleet.errors import BusyError, NoReleaseError
from fleet.records import record_files
from fleet.records.record_files import SCHEMA_VERSION, Reports
from fleet.records.rollout_plan import RolloutPlan
from fleet.records.state import RolloutState, owner

ROLLOUTS = Path(__file__).resolve().parents[2] / "rollouts"  # next to playbooks/, which uses the same path
LOCK_S = 30.0
BEFORE = "reports/before.json"  # the reports of the devices before the rollout changed a device
PUSH = "push.tar"  # the payload: packed when a rollout begins or resumes, removed when it has ended
STAMP = "%Y%m%dT%H%M%SZ"
ID = re.compile(r"(\d{8}T\d{6}Z)(-[0-9a-f]{1,8})?")


@dataclass(frozen=True)
class Record:
    """The record of one rollout: a folder with the rollout's files."""

    folder: Path

    @property
    def id(self) -> str:
        """The rollout's id, which is the folder's name."""
        return self.folder.name

    @property
    def began(self) -> str | None:
        """The time at which the rollout began, in the format of `audit_log.now`."""
        at = _start_of(self.id)
        return f"{at.isoformat()}Z" if at else None

    @cached_property
    def plan(self) -> RolloutPlan:
        """The content of plan.json, which never changes. Raises ConfigurationError."""
        return record_files.read_plan(self.folder / "plan.json")

    @property
    def before(self) -> Reports:
        """The devices' reports from before the rollout, by device name. Raises ConfigurationError."""
        return record_files.read_reports(self.folder / BEFORE)

    def load(self) -> RolloutState:
        """Read the rollout's state. Raises ConfigurationError if state.json is not valid."""
        return record_files.read_state(self.folder / "state.json")

    def require_matching_plan(self) -> None:
        """Check that plan.json and state.json list the same release for each device. Raises ConfigurationError."""
        planned = {name: device.release for name, device in self.plan.devices.items()}
        recorded = {name: device.release for name, device in self.load().devices.items()}
        for name in sorted({*planned, *recorded}):
            plan, state = planned.get(name, "nothing"), recorded.get(name, "nothing")
            if plan != state:
                raise record_files.damaged(
                    self.folder / "plan.json", f"devices.{name}: found {plan}; state.json has {state}"
                )

    def save(self, state: RolloutState) -> None:
        """Replace the rollout's state durably. Raises OSError."""
        durable.write_file(self.folder / "state.json", _versioned(asdict(state)))


@contextlib.contextmanager
def locked(fleet: str, root: Path = ROLLOUTS) -> Iterator[None]:
    """Hold the lock of a fleet's rollout records. Raises BusyError if another process holds it for too long."""
    folder = root / fleet
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    busy = BusyError(
        str(path),
        "the lock is held by another process",
        f"a lock that is released within {LOCK_S:g} s",
        "run the command again",
    )
    with locks.exclusive(path, busy, LOCK_S):
        yield


def rollouts(fleet: str, root: Path = ROLLOUTS) -> list[Record]:
    """Return the records of all rollouts of a fleet, oldest first.

    A folder whose name is not a rollout's id is ignored.
    """
    return [Record(path.parent) for path in sorted((root / fleet).glob("*/state.json")) if _start_of(path.parent.name)]


def find(fleet: str, rollout: str | None = None, root: Path = ROLLOUTS) -> Record:
    """Return the record of one rollout of a fleet.

    Args:
        fleet: The fleet's name.
        rollout: The rollout's id; None returns the latest rollout.
        root: The folder that contains all rollout records.

    Raises:
        NoReleaseError: The rollout does not exist.
    """
    records = rollouts(fleet, root)
    matching = [record for record in records if rollout in (None, record.id)]
    if not matching:
        latest = ", ".join(record.id for record in records[-3:]) or "none"
        raise NoReleaseError(
            f"{root / fleet}",
            f"no rollout {rollout or ''}".strip(),
            f"a recorded rollout; the latest are: {latest}",
            "use the id of a recorded rollout; if there is none, begin a rollout",
        )
    return matching[-1]


def unfinished(fleet: str, root: Path = ROLLOUTS, elsewhere: bool = True) -> Record | None:
    """Return the record of a fleet's unfinished rollout, or None if the latest rollout has ended.

    Args:
        fleet: The fleet's name.
        root: The folder that contains all rollout records.
        elsewhere: Whether the rollout's process counts as running if it belongs to another machine, where it cannot be
            checked. If False, such a process counts as ended.

    Raises:
        BusyError: The rollout's process is still running.
    """
    records = rollouts(fleet, root)
    if not records:
        return None
    state = records[-1].load()
    if state.status not in ("running", "paused"):
        return None
    here = state.owner.host == socket.gethostname()
    if state.owner != owner() and state.owner.is_alive() and (here or elsewhere):
        raise BusyError(
            f"fleet {fleet}",
            f"rollout {records[-1].id} is running in process {state.owner.pid} on {state.owner.host}",
            "one rollout per fleet at a time",
            "wait until that rollout ends, or end its process (the next run then resumes the rollout)"
            + ("" if here else "; if that machine no longer exists, run `fleet give-up`"),
        )
    return records[-1]


def begin(
    fleet: str,
    plan: Mapping[str, object],
    state: RolloutState,
    root: Path = ROLLOUTS,
    fill: Callable[[Record], None] = lambda _: None,
) -> Record:
    """Create the record of a new rollout. If this fails, the record's folder is removed.

    plan.json is written first, then the files that `fill` adds, then state.json.

    Args:
        fleet: The fleet's name. The caller must hold the fleet's lock.
        plan: The content of plan.json.
        state: The initial state of the rollout.
        root: The folder that contains all rollout records.
        fill: A function that adds further files to the record's folder.

    Raises:
        OSError: A file cannot be written. Errors of `fill` are raised too.
    """
    _remove_incomplete(root / fleet)
    commit = str(plan.get("commit") or "")[:8]
    record = Record(root / fleet / (_next_stamp(fleet, root) + (f"-{commit}" if commit else "")))
    try:
        (record.folder / "reports").mkdir(parents=True)
        durable.write_file(record.folder / "plan.json", _versioned(plan))
        fill(record)
        record.save(state)
    except BaseException:
        shutil.rmtree(record.folder, ignore_errors=True)  # the original error is raised; the next rollout cleans up
        raise
    durable.sync_directory(record.folder.parent)
    return record


def _versioned(content: Mapping[str, object]) -> bytes:
    versioned = {"schema_version": SCHEMA_VERSION, **content}
    return (json.dumps(versioned, indent=2, sort_keys=True, default=documents.encode) + "\n").encode()


def _next_stamp(fleet: str, root: Path) -> str:
    """Return the timestamp for the id of a new rollout. It is later than the timestamps of all existing rollouts.

    The newest rollout must be last when rollouts are sorted by id, even if the clock was set back.
    """
    starts = [_start_of(record.id) for record in rollouts(fleet, root)]
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    return max([now, *(start + timedelta(seconds=1) for start in starts if start)]).strftime(STAMP)


def _start_of(name: str) -> datetime | None:
    """Return the start time in a rollout's id, in UTC without a time zone; None if the name is not a rollout's id."""
    try:
        match = ID.fullmatch(name)
        return datetime.strptime(match[1], STAMP) if match else None
    except ValueError:  # not a calendar date
        return None


def _remove_incomplete(folder: Path) -> None:
    """Remove the rollout folders without state.json. Their process was killed before it changed any device."""
    for each in folder.iterdir() if folder.is_dir() else ():
        if _start_of(each.name) and each.is_dir() and not (each / "state.json").exists():
            shutil.rmtree(each)


def encode(value: object) -> bytes:
    """Return the content of a JSON file of a record. The same value always gives the same bytes."""
    return (json.dumps(value, sort_keys=True, default=documents.encode) + "\n").encode()
