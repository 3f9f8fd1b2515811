"""Decide which release the service starts with, before the service loads a model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from edge_agent.core import logs, space, state
from edge_agent.core.config import Config
from edge_agent.core.errors import BusyError, ConfigurationError, NoReleaseError, TrustError
from edge_agent.core.fault_points import point
from edge_agent.core.state import State
from edge_agent.lifecycle import trial_rules
from edge_agent.storage import slots

LOCK_S = 10.0


@dataclass(frozen=True)
class BootResult:
    """The agent's state after `boot` decided which release the service starts with.

    Attributes:
        state: The state that `boot` decided on.
        unwritten_state: The outdated state that is still in state.json because `state` could not be written there; None
            if state.json contains `state`.
    """

    state: State = field(default_factory=State)
    unwritten_state: State | None = None


def boot(config: Config) -> BootResult:
    """Count the service's start if a release is on trial, roll back if necessary, and return the resulting state.

    If no release is on trial, nothing has to be written. So the service starts even if another process, such as an
    installation, holds the lock, or if the disk is full or read-only. If a release is on trial and its start cannot be
    counted, the release is rolled back, because without a count a release that crashes would be restarted forever.

    Raises:
        BusyError: Another process holds the lock while a release is on trial.
        OSError: The state cannot be written, and there is no release to roll back to.
    """
    layout = config.layout
    point("serve.before_boot")
    try:
        with state.locked(layout, LOCK_S):
            result = _decide(config)
    except BusyError as error:
        known_state = state.load(layout)
        if known_state.trial:
            raise
        logs.event("waiting", f"started without the lock: {_one_line(error)}", logging.WARNING)
        result = BootResult(_undamaged(config, known_state))
    point("serve.after_boot")
    return result


def current_state(config: Config, booted: BootResult) -> State:
    """Return the state in state.json, or `booted.state` if `boot` could not write it there.

    If state.json has changed since `boot`, its content is returned. Before `booted.state` is returned, this function
    tries again to write it to state.json. Raises OSError and ConfigurationError.
    """
    on_disk = state.load(config.layout)
    if on_disk != booted.unwritten_state:
        return on_disk
    try:
        with state.locked(config.layout, wait_s=0.0):
            if state.load(config.layout) == booted.unwritten_state:
                state.save(config.layout, booted.state)
    except BusyError:
        pass
    except OSError as error:
        if error.errno not in space.UNWRITABLE:
            raise
    return booted.state


def _decide(config: Config) -> BootResult:
    """Do the work of `boot` while the caller holds the lock."""
    layout = config.layout
    try:
        state.load(layout)
    except ConfigurationError as error:
        state.restore(layout)
        text = f"restored from the last copy; the damaged file is kept next to it: {_one_line(error)}"
        logs.event("state", text, logging.CRITICAL)
    before = state.load(layout)
    decided, reason = trial_rules.count_start(config.trial, _undamaged(config, before))
    if reason:
        _log_rollback(before.current, decided.current, reason, logging.WARNING)
        decided = _undamaged(config, decided)
    try:
        slots.recover(layout)
        if decided != before:
            state.save(layout, decided)
        state.show_current(layout, decided)
    except OSError as error:
        on_disk = state.load(layout)
        unwritten_start = decided.trial is not None and on_disk != decided
        if error.errno not in space.UNWRITABLE or (unwritten_start and decided.previous is None):
            raise
        logs.event("unwritable", f"{layout.state} cannot be written: {_one_line(error)}", logging.CRITICAL)
        if unwritten_start:
            reason = "on trial, and its start cannot be counted"
            _log_rollback(decided.current, decided.previous, reason, logging.CRITICAL)
            decided = decided.rolled_back(None)
        return BootResult(decided, on_disk if on_disk != decided else None)
    return BootResult(decided)


def _undamaged(config: Config, known_state: State) -> State:
    """Roll back if the current release's slot is damaged and the previous release's is not. Return the state.

    The damaged release is not marked as bad, because the disk failed, not the release.
    """
    if known_state.current is None:
        return known_state
    try:
        slots.verify(config.layout, known_state.current)
        return known_state
    except (TrustError, NoReleaseError) as error:
        damage = str(error)
    logs.event("damaged", f"the slot is damaged: {damage}", logging.CRITICAL, release=known_state.current)
    if known_state.previous is None:
        return known_state
    try:
        slots.verify(config.layout, known_state.previous)
    except (TrustError, NoReleaseError) as error:
        text = f"the previous slot is damaged too: {error}"
        logs.event("damaged", text, logging.CRITICAL, release=known_state.previous)
        return known_state
    _log_rollback(known_state.current, known_state.previous, "the slot is damaged", logging.CRITICAL)
    return known_state.rolled_back(None)


def _log_rollback(release: str | None, now: str | None, reason: str, level: int) -> None:
    logs.event("rollback", f"rolled back from {release}: {reason}", level, release=release, now=now)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
