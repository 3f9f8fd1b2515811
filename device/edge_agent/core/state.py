"""Which release a device runs: one small file that is replaced in one step.

`current`, `previous` and the trial change together, so they stand in one file. With a link for each, a power cut
between two renames would leave a device in a state that nobody wrote.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from edge_agent.core import durable
from edge_agent.core.errors import BusyError, ConfigurationError
from edge_agent.core.layout import Layout

SCHEMA_VERSION = 1
PROVEN = 32  # so many releases are remembered; slots are fewer


@dataclass(frozen=True)
class Trial:
    """A release that was switched to and has not proved itself. `starts`: how often the service started with it."""

    release: str
    since: str
    starts: int = 0


@dataclass(frozen=True)
class State:
    """`bad`: releases that failed here, and why; they are not installed or activated until `forget`.

    `trusted_time`: the latest time (ISO 8601, UTC) at which metadata was verified; no earlier one is believed.
    `proven`: releases that were confirmed here and left since, the last one at the end. `previous` is always such a
    one; a state of an agent that did not keep the others has none.
    """

    current: str | None = None
    previous: str | None = None
    trial: Trial | None = None
    bad: Mapping[str, str] = field(default_factory=dict)
    trusted_time: str | None = None
    proven: tuple[str, ...] = ()

    def was_confirmed(self, release: str) -> bool:
        """Whether `release` was confirmed on this device: a way back that needs no trial."""
        return release not in self.bad and (release == self.previous or release in self.proven)

    def switched(self, release: str, now: str, reason: str | None = None) -> State:
        """`release` becomes current, on trial; with a reason the one that is left is bad.

        Neither a release that is on trial itself nor a bad one is worth going back to.
        """
        left = self._left(reason)
        back = self.previous if self.trial or reason is not None else self.current
        return replace(left, current=release, previous=None if back == release else back, trial=Trial(release, now))

    def started(self) -> State:
        """The service starts once more with a release on trial."""
        assert self.trial is not None
        return replace(self, trial=replace(self.trial, starts=self.trial.starts + 1))

    def confirmed(self) -> State:
        return replace(self, trial=None)

    def rolled_back(self, reason: str | None) -> State:
        """`previous` becomes current again, confirmed as it was; with a reason the one that is left is bad."""
        return replace(self._left(reason), current=self.previous, previous=None, trial=None)

    def _left(self, reason: str | None) -> State:
        """Of the current release, which is left: why it is bad, or that it was confirmed."""
        if self.current is None:
            return self
        others = [release for release in (*self.proven, self.previous) if release and release != self.current]
        if reason is not None:
            return replace(self, bad={**self.bad, self.current: reason}, proven=_last(others))
        return replace(self, proven=_last(others if self.trial else [*others, self.current]))

    def forgotten(self, release: str) -> State:
        return replace(self, bad={name: reason for name, reason in self.bad.items() if name != release})


def _last(releases: list[str]) -> tuple[str, ...]:
    """Each once, where it comes last; the last PROVEN of them."""
    return tuple(reversed(list(dict.fromkeys(reversed(releases)))[:PROVEN]))


def format_time(moment: datetime) -> str:
    """A moment as the state has it: UTC in ISO 8601, whole seconds."""
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def now() -> str:
    return format_time(datetime.now(timezone.utc))


def load(layout: Layout) -> State:
    """The state on disk; a new device has an empty one. Raises ConfigurationError."""
    try:
        value = json.loads(layout.state_file.read_text(encoding="utf-8"))
        if value.pop("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"schema_version is not {SCHEMA_VERSION}")
        trial = value.pop("trial")
        proven = value.pop("proven", [])
        if not isinstance(proven, list):
            raise TypeError("proven is not a list of releases")
        return _typed(State(trial=Trial(**trial) if trial else None, proven=tuple(proven), **value))
    except FileNotFoundError:
        return State()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigurationError(
            str(layout.state_file),
            f"not a state that this agent wrote ({error})",
            f"JSON with schema_version {SCHEMA_VERSION}",
            "restart the service, which takes the last copy; without one move the file away: the agent then starts "
            "empty, and what is installed runs after: edge-agent activate RELEASE",
        ) from None


def _typed(state: State) -> State:
    """The same state, if its fields hold what they have to. Raises TypeError, ValueError."""
    trial = state.trial
    texts = [state.current, state.previous, state.trusted_time, *((trial.release, trial.since) if trial else ())]
    if not all(text is None or isinstance(text, str) for text in texts) or not all(
        isinstance(text, str) for text in state.proven
    ):
        raise TypeError("a release or a time is not text")
    if not all(isinstance(text, str) for item in state.bad.items() for text in item):
        raise TypeError("bad is not a mapping of releases to reasons")
    if trial and (type(trial.starts) is not int or trial.release != state.current):
        raise ValueError(f"trial is of {trial.release}, starts {trial.starts!r}, but current is {state.current}")
    return state


def save(layout: Layout, state: State) -> None:
    """Replace the state, durably; then the link that shows people the current slot. Raises OSError: then the state on
    disk is the old one or the new one, whole, and `load` says which.
    """
    durable.make_directory(layout.state)
    content = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(state)}, indent=2, sort_keys=True) + "\n"
    durable.write_file(layout.state_file, content.encode(), faults="state")
    with contextlib.suppress(OSError):  # an older copy is better than none, and no reason to fail
        durable.write_file(_copy(layout), f"{_sum(content)}\n{content}".encode())
    show_current(layout, state)


def load_unchanged(layout: Layout, known: State) -> State:
    """The state on disk, under the lock, if nobody switched since it was `known`. Raises BusyError where somebody did,
    ConfigurationError.
    """
    now = load(layout)
    if (now.current, now.previous, now.bad) != (known.current, known.previous, known.bad):
        raise BusyError(
            str(layout.state_file),
            f"changed during this command: {now.current or 'no release'} is current",
            f"{known.current or 'no release'}, as when this began",
            "see: edge-agent status; then call again",
        )
    return now


def keep_trusted_time(layout: Layout, verified: datetime) -> None:
    """Keep the latest time at which metadata was verified: a device without a clock believes no earlier one."""
    moment = format_time(verified)
    with locked(layout):
        known = load(layout)
        if known.trusted_time is None or moment > known.trusted_time:
            save(layout, replace(known, trusted_time=moment))


def restore(layout: Layout) -> None:
    """Put the last copy in the place of a state that cannot be read. Raises ConfigurationError where that is none."""
    try:
        load(layout)
    except ConfigurationError:
        try:
            told, _, content = _copy(layout).read_text(encoding="utf-8").partition("\n")
        except (FileNotFoundError, ValueError):
            told, content = "", ""
        if told != _sum(content):
            raise
        damaged = layout.state_file.read_bytes()
        durable.write_file(layout.state_file.with_name(f"{layout.state_file.name}.damaged"), damaged)
        durable.write_file(layout.state_file, content.encode())


def _copy(layout: Layout) -> Path:
    """The sha256 of the state in its first line, then the state: it is believed only whole."""
    return layout.state_file.with_name(f"{layout.state_file.name}.copy")


def _sum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def show_current(layout: Layout, state: State) -> None:
    """Make the link `current` say what the state says."""
    wanted = f"releases/{state.current}" if state.current else None
    with contextlib.suppress(OSError):
        if str(layout.current_link.readlink()) == wanted:
            return
    if wanted is None:
        layout.current_link.unlink(missing_ok=True)
    else:
        durable.replace_link(layout.current_link, wanted)


@contextlib.contextmanager
def locked(layout: Layout, wait_s: float = 10.0, file: Path | None = None) -> Iterator[None]:
    """Hold the one lock for all that changes something. The kernel frees it when its process ends, however it ends.

    `file`: another lock, such as `layout.install_lock`. Raises BusyError when it is not free within `wait_s` seconds.
    On a file system that is read-only whoever only reads is let in too.
    """
    durable.make_directory(layout.state)
    lock = file or layout.lock
    with _opened(lock) as stream:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    stream.seek(0)
                    holder = (stream.read() or b"").decode(errors="replace").strip() or "another process"
                    raise BusyError(
                        str(lock), f"held by {holder}", f"free within {wait_s:g} s", "wait, then call again"
                    ) from None
                time.sleep(0.05)  # flock has no time limit of its own
        with contextlib.suppress(OSError):  # who holds it is for a message only: a full disk must not keep us from it
            stream.truncate(0)
            stream.write(f"process {os.getpid()}".encode())
        yield


def _opened(lock: Path) -> io.FileIO:
    """A lock's file. flock needs no right to write: on a read-only file system a lock is held as well as elsewhere."""
    try:
        return io.FileIO(lock, "a+")
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    # Not there yet: then nobody has ever written here. The folder takes its place.
    return io.FileIO(os.open(lock if lock.exists() else lock.parent, os.O_RDONLY), "r")
