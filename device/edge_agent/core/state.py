"""The state of the agent: the current release, the previous one and the trial, in one small file (state.json).

The three change together, so they are in one file, which is replaced in one step. If each had its own symbolic link, a
power cut between two renames would leave a combination that nobody intended.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
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
    """The trial of the current release, which is not confirmed yet.

    Attributes:
        release: The release on trial; it is the current one.
        since: Time of the switch (ISO 8601, UTC).
        starts: Number of times that the service has started with this release.
    """

    release: str
    since: str
    starts: int = 0


@dataclass(frozen=True)
class State:
    """The content of state.json. Methods that change something return a changed copy.

    Attributes:
        current: The release that the service runs, or None.
        previous: The release that a rollback returns to, or None.
        trial: The trial of the current release, or None once it is confirmed.
        bad: The releases that failed on this device, each with the reason. A bad release can be neither installed nor
            activated until `edge-agent forget`.
        trusted_time: Latest time at which metadata was verified (ISO 8601, UTC). It is used instead of the device's
            clock if the clock shows an earlier time.
        proven: Releases that were confirmed on this device and later replaced, the most recent one last; empty if an
            older agent, which stored only `previous`, wrote the file.
    """

    current: str | None = None
    previous: str | None = None
    trial: Trial | None = None
    bad: Mapping[str, str] = field(default_factory=dict)
    trusted_time: str | None = None
    proven: tuple[str, ...] = ()

    def was_confirmed(self, release: str) -> bool:
        """Return whether `release` was confirmed on this device, so that a rollback to it needs no trial."""
        return release not in self.bad and (release == self.previous or release in self.proven)

    def switched(self, release: str, now: str, reason: str | None = None) -> State:
        """Make `release` current and put it on trial.

        The release that was current becomes the previous one, unless it is on trial or bad: a rollback must not return
        to a release that was never confirmed or that failed.

        Args:
            release: The release to switch to.
            now: The present time (ISO 8601, UTC).
            reason: The reason for which the release that was current is marked as bad; None does not mark it.
        """
        previous = self.previous if self.trial or reason is not None else self.current
        return replace(
            self._replaced(reason),
            current=release,
            previous=None if previous == release else previous,
            trial=Trial(release, now),
        )

    def started(self) -> State:
        """Count one more start of the service with the release on trial."""
        assert self.trial is not None
        return replace(self, trial=replace(self.trial, starts=self.trial.starts + 1))

    def confirmed(self) -> State:
        """End the trial and keep the current release."""
        return replace(self, trial=None)

    def rolled_back(self, reason: str | None) -> State:
        """Make `previous` current again, without a trial.

        If `reason` is given, the release that was current is marked as bad for this reason.
        """
        return replace(self._replaced(reason), current=self.previous, previous=None, trial=None)

    def _replaced(self, reason: str | None) -> State:
        """Record whether the current release, which is about to be replaced, is bad or was confirmed."""
        if self.current is None:
            return self
        others = [release for release in (*self.proven, self.previous) if release and release != self.current]
        if reason is not None:
            return replace(self, bad={**self.bad, self.current: reason}, proven=_latest(others))
        return replace(self, proven=_latest(others if self.trial else [*others, self.current]))

    def forgotten(self, release: str) -> State:
        """Remove the mark of a bad release."""
        return replace(self, bad={name: reason for name, reason in self.bad.items() if name != release})


def _latest(releases: list[str]) -> tuple[str, ...]:
    """Return the last MOST_PROVEN different releases, each at the position of its last occurrence."""
    return tuple(reversed(list(dict.fromkeys(reversed(releases)))[:MOST_PROVEN]))


def format_time(moment: datetime) -> str:
    """Return a time in ISO 8601, UTC, with whole seconds."""
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def now() -> str:
    """Return the present time in ISO 8601, UTC."""
    return format_time(datetime.now(timezone.utc))


def load(layout: Layout) -> State:
    """Return the state on disk, or an empty state if there is no file yet.

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
    """Return the state if its fields have the right types. Raises TypeError, ValueError."""
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
    """Replace the state on disk durably, then update the link `current`.

    If this raises OSError, the state on disk is either the old or the new one, and `load` returns it.
    """
    durable.make_directory(layout.state)
    content = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(state)}, indent=2, sort_keys=True) + "\n"
    durable.write_file(layout.state_file, content.encode(), faults="state")
    with contextlib.suppress(OSError):  # if the copy cannot be written, an older copy is good enough
        durable.write_file(_copy(layout), f"{_checksum(content)}\n{content}".encode())
    show_current(layout, state)


def load_unchanged(layout: Layout, earlier: State) -> State:
    """Return the state on disk if no other process has changed it since `earlier` was read. The caller holds the lock.

    Raises BusyError if another process has changed the current, previous or bad releases, and ConfigurationError if
    the state is damaged.
    """
    state = load(layout)
    if (state.current, state.previous, state.bad) != (earlier.current, earlier.previous, earlier.bad):
        raise BusyError(
            str(layout.state_file),
            f"changed during this command: {state.current or 'no release'} is current",
            f"{earlier.current or 'no release'} as the current release during the whole command",
            "check edge-agent status, then run the command again",
        )
    return state


def keep_trusted_time(layout: Layout, verified: datetime) -> None:
    """Store the time at which metadata was verified, if it is later than the stored one.

    The device uses this time instead of its clock if the clock shows an earlier time.
    """
    moment = format_time(verified)
    with locked(layout):
        state = load(layout)
        if state.trusted_time is None or moment > state.trusted_time:
            save(layout, replace(state, trusted_time=moment))


def restore(layout: Layout) -> None:
    """Replace a damaged state with the last copy. Raises ConfigurationError if the copy is missing or damaged."""
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
    """Return the path of the state's copy. Its first line is the sha256 of the state, and the state follows."""
    return layout.state_file.with_name(f"{layout.state_file.name}.copy")


def _checksum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def show_current(layout: Layout, state: State) -> None:
    """Make the link `current` point to the current slot. The link is for operators; the agent does not read it."""
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
    """Hold the lock that every change requires. The kernel releases it when the process ends, even after a crash.

    The lock works on a read-only file system too, for processes that only read.

    Args:
        layout: The folders of the agent.
        wait_s: Longest time to wait for the lock, in seconds.
        file: The lock file, such as `layout.install_lock`; None means `layout.lock`.

    Raises:
        BusyError: Another process still holds the lock after `wait_s`.
    """
    durable.make_directory(layout.state)
    lock = file or layout.lock
    with _open_lock(lock) as stream:
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


def _open_lock(lock: Path) -> io.FileIO:
    """Open a lock file, for reading only if the file system is read-only. flock needs no write access."""
    try:
        return io.FileIO(lock, "a+")
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    # The file system is read-only. If the lock file does not exist either, lock its folder instead.
    return io.FileIO(os.open(lock if lock.exists() else lock.parent, os.O_RDONLY), "r")
