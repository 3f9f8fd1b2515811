"""The state of the agent: the current release, the previous release and the trial, in one small file (state.json).

These three change together, so they are in one file, which is replaced in one step. If two symbolic links showed the
current and the previous release, a power cut between their changes could leave them inconsistent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from edge_agent.core import durable, locks
from edge_agent.core.errors import BusyError, ConfigurationError
from edge_agent.core.layout import Layout

SCHEMA_VERSION = 1
MOST_PROVEN = 32  # number of confirmed releases that are remembered; a device has fewer slots


@dataclass(frozen=True)
class Trial:
    """The trial of the current release, which lasts until the agent confirms the release or rolls it back.

    Attributes:
        release: The release on trial, which is always the current release.
        since: Time of the switch (ISO 8601, UTC).
        starts: Number of times that the service has started with this release.
    """

    release: str
    since: str
    starts: int = 0


@dataclass(frozen=True)
class State:
    """The content of state.json. A State object does not change: its methods return a changed copy.

    Attributes:
        current: The release that the service runs, or None.
        previous: The release to which a rollback returns, or None.
        trial: The trial of the current release, or None if this release is confirmed.
        bad: The releases that failed on this device or that an operator marked as bad, each with the reason. Such a
            release can be neither installed nor activated until an operator runs `edge-agent forget`.
        trusted_time: Latest time at which the agent verified metadata (ISO 8601, UTC), or None. If the device's clock
            shows an earlier time, the agent uses this time instead.
        proven: Releases that were confirmed on this device and later replaced by another release, in the order in which
            they were replaced. Empty if an older agent wrote the file, because older agents stored only `previous`.
    """

    current: str | None = None
    previous: str | None = None
    trial: Trial | None = None
    bad: Mapping[str, str] = field(default_factory=dict)
    trusted_time: str | None = None
    proven: tuple[str, ...] = ()

    def was_confirmed(self, release: str) -> bool:
        """Return whether `release` was confirmed on this device before and is not bad.

        A rollback to such a release needs no trial.
        """
        return release not in self.bad and (release == self.previous or release in self.proven)

    def switched(self, release: str, now: str, reason: str | None = None) -> State:
        """Return the state after a switch to `release`, in which `release` is current and on trial.

        The release that was current becomes `previous`, unless it was on trial or is marked as bad, because a rollback
        must not return to a release that was never confirmed or that failed.

        Args:
            release: The release to switch to.
            now: The present time (ISO 8601, UTC).
            reason: The reason why the replaced release is marked as bad; None if it is not marked.
        """
        previous = self.previous if self.trial or reason is not None else self.current
        return replace(
            self._replaced(reason),
            current=release,
            previous=None if previous == release else previous,
            trial=Trial(release, now),
        )

    def started(self) -> State:
        """Return the state after one more start of the service with the release on trial."""
        assert self.trial is not None
        return replace(self, trial=replace(self.trial, starts=self.trial.starts + 1))

    def confirmed(self) -> State:
        """Return the state after the trial succeeded: the current release stays current and is no longer on trial."""
        return replace(self, trial=None)

    def rolled_back(self, reason: str | None) -> State:
        """Return the state after a rollback, in which the previous release is current again, without a trial.

        If `reason` is given, the release that was current before the rollback is marked as bad for this reason.
        """
        return replace(self._replaced(reason), current=self.previous, previous=None, trial=None)

    def _replaced(self, reason: str | None) -> State:
        """Add the current release to `bad` or `proven` before another release replaces it; return the new state.

        The current release is added to `bad` if `reason` is given. It is added to `proven` if there is no `reason` and
        it is not on trial.
        """
        if self.current is None:
            return self
        others = [release for release in (*self.proven, self.previous) if release and release != self.current]
        if reason is not None:
            return replace(self, bad={**self.bad, self.current: reason}, proven=_latest(others))
        return replace(self, proven=_latest(others if self.trial else [*others, self.current]))

    def forgotten(self, release: str) -> State:
        """Return the state in which `release` is no longer marked as bad."""
        return replace(self, bad={name: reason for name, reason in self.bad.items() if name != release})


def _latest(releases: list[str]) -> tuple[str, ...]:
    """Remove all but the last occurrence of each release, and return the last MOST_PROVEN remaining releases."""
    return tuple(reversed(list(dict.fromkeys(reversed(releases)))[:MOST_PROVEN]))


def format_time(moment: datetime) -> str:
    """Format a time as text in ISO 8601, in UTC and with whole seconds."""
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def now() -> str:
    """Return the present time as text in ISO 8601, UTC."""
    return format_time(datetime.now(timezone.utc))


def load(layout: Layout) -> State:
    """Read the state from state.json, or return an empty state if this file does not exist yet.

    Raises ConfigurationError if the file is damaged.
    """
    try:
        value = json.loads(layout.state_file.read_text(encoding="utf-8"))
        if value.pop("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"schema_version is not {SCHEMA_VERSION}")
        trial = value.pop("trial")
        proven = value.pop("proven", [])
        if not isinstance(proven, list):
            raise TypeError("proven is not a list of releases")
        return _validated(State(trial=Trial(**trial) if trial else None, proven=tuple(proven), **value))
    except FileNotFoundError:
        return State()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigurationError(
            str(layout.state_file),
            f"not a state that this agent wrote ({error})",
            f"JSON with schema_version {SCHEMA_VERSION}",
            "restart the service, which restores the last copy; if there is no copy, move the file away (the agent "
            "then starts without a release), and activate an installed release: edge-agent activate RELEASE",
        ) from None


def _validated(state: State) -> State:
    """Return `state` if its fields have the right types and its trial is a trial of the current release.

    Raises TypeError or ValueError for any other state.
    """
    trial = state.trial
    texts = [state.current, state.previous, state.trusted_time, *((trial.release, trial.since) if trial else ())]
    if not all(text is None or isinstance(text, str) for text in texts) or not all(
        isinstance(text, str) for text in state.proven
    ):
        raise TypeError("a release or a time is not a string")
    if not all(isinstance(text, str) for item in state.bad.items() for text in item):
        raise TypeError("bad is not a mapping of releases to reasons")
    if trial and (type(trial.starts) is not int or trial.release != state.current):
        raise ValueError(f"{trial.release} is on trial with {trial.starts!r} starts, but {state.current} is current")
    return state


def save(layout: Layout, state: State) -> None:
    """Write the state to state.json so that it survives a power cut, then update the symbolic link `current`.

    If this function raises OSError, state.json has either the old or the new state, and `load` can read it.
    """
    durable.make_directory(layout.state)
    content = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(state)}, indent=2, sort_keys=True) + "\n"
    durable.write_file(layout.state_file, content.encode(), faults="state")
    with contextlib.suppress(OSError):  # if the copy cannot be written, an older copy is good enough
        durable.write_file(_copy(layout), f"{_checksum(content)}\n{content}".encode())
    show_current(layout, state)


def load_unchanged(layout: Layout, earlier: State) -> State:
    """Read state.json again, and check that no other process has changed the releases since `earlier` was read.

    The caller must hold the lock. Raises BusyError if another process has changed the current release, the previous
    release or the bad releases, and ConfigurationError if state.json is damaged.
    """
    state = load(layout)
    if (state.current, state.previous, state.bad) != (earlier.current, earlier.previous, earlier.bad):
        raise BusyError(
            str(layout.state_file),
            f"changed by another process during this command; {state.current or 'no release'} is now current",
            f"{earlier.current or 'no release'} as the current release, and an otherwise unchanged state",
            "check edge-agent status, then run the command again",
        )
    return state


def keep_trusted_time(layout: Layout, verified: datetime) -> None:
    """Store `verified`, a time at which all metadata was valid, as `trusted_time` unless the stored time is later.

    If the device's clock shows a time before `trusted_time`, the agent uses `trusted_time` instead.
    """
    moment = format_time(verified)
    with locked(layout):
        state = load(layout)
        if state.trusted_time is None or moment > state.trusted_time:
            save(layout, replace(state, trusted_time=moment))


def restore(layout: Layout) -> None:
    """If state.json is damaged, replace it with its last copy, and keep the damaged file as state.json.damaged.

    Raises ConfigurationError if state.json is damaged and the copy is missing or damaged too.
    """
    try:
        load(layout)
    except ConfigurationError:
        try:
            checksum, _, content = _copy(layout).read_text(encoding="utf-8").partition("\n")
        except (FileNotFoundError, ValueError):
            checksum, content = "", ""
        if checksum != _checksum(content):
            raise
        damaged = layout.state_file.read_bytes()
        durable.write_file(layout.state_file.with_name(f"{layout.state_file.name}.damaged"), damaged)
        durable.write_file(layout.state_file, content.encode())


def _copy(layout: Layout) -> Path:
    """Return the path of the copy of state.json. The first line of the copy is the sha256 of the following lines."""
    return layout.state_file.with_name(f"{layout.state_file.name}.copy")


def _checksum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def show_current(layout: Layout, state: State) -> None:
    """Make the symbolic link `current` point to the slot of the current release, or remove the link if there is none.

    The link is for operators; the agent does not read it.
    """
    target = f"releases/{state.current}" if state.current else None
    with contextlib.suppress(OSError):
        if str(layout.current_link.readlink()) == target:
            return
    if target is None:
        layout.current_link.unlink(missing_ok=True)
    else:
        durable.replace_link(layout.current_link, target)


@contextlib.contextmanager
def locked(layout: Layout, wait_s: float = 10.0, file: Path | None = None) -> Iterator[None]:
    """Within the block, hold the lock that a process must hold while it changes the agent's files.

    The kernel releases the lock when the process ends, even after a crash. On a read-only file system, a process that
    only reads can hold the lock too.

    Args:
        layout: The paths of the agent's files.
        wait_s: Maximum time to wait for the lock, in seconds.
        file: The lock file, such as `layout.install_lock`; None means `layout.lock`.

    Raises:
        BusyError: Another process still holds the lock after `wait_s` seconds.
    """
    durable.make_directory(layout.state)
    lock = file or layout.lock
    with locks.open_file(lock) as stream:
        if not locks.acquire(stream, wait_s):
            stream.seek(0)
            holder = (stream.read() or b"").decode(errors="replace").strip() or "another process"
            raise BusyError(
                str(lock), f"held by {holder}", f"a free lock within {wait_s:g} s", "wait, then run the command again"
            )
        with contextlib.suppress(OSError):  # the holder's name is for a message only: do not fail on a full disk
            stream.truncate(0)
            stream.write(f"process {os.getpid()}".encode())
        yield
