"""The content of state.json: the current release, the previous release and the trial of a device.

These three change together, so they are in one file, which is replaced in one step. If two symbolic links showed the
current and the previous release, a power cut between their changes could leave them inconsistent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

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


def to_text(state: State) -> str:
    """Return the content of state.json for `state`."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(state)}, indent=2, sort_keys=True) + "\n"


def parse(text: str) -> State:
    """Return the state that `to_text` has converted to `text`.

    Raises ValueError, TypeError, KeyError, AttributeError or RecursionError if the text is not a state.
    """
    value = json.loads(text)
    if value.pop("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"schema_version is not {SCHEMA_VERSION}")
    trial = value.pop("trial")
    proven = value.pop("proven", [])
    if not isinstance(proven, list):
        raise TypeError("proven is not a list of releases")
    return _validated(State(trial=Trial(**trial) if trial else None, proven=tuple(proven), **value))


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
