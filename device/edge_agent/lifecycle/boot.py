"""Decide which release the service starts with, before the service loads a model."""

from __future__ import annotations

import logging

from edge_agent.core import logs, space, state
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config
from edge_agent.core.errors import BusyError, ConfigurationError, NoReleaseError, TrustError
from edge_agent.core.fault_points import point
from edge_agent.lifecycle import trial_rules
from edge_agent.storage import slots

LOCK_S = 10.0


def boot(config: Config) -> State:
    """Count the service's start if a release is on trial, roll back if necessary, and return the resulting state.

    If no release is on trial, nothing has to be written. So the service starts even if another process, such as an
    installation, holds the lock, or if the disk cannot be written. If a release is on trial and its start cannot be
    counted, the release is rolled back, because without a count a release that crashes would be restarted forever. A
    decision that cannot be written is kept in memory (see `state.keep`).

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
        result = _undamaged(config, known_state)
    point("serve.after_boot")
    return result


def _decide(config: Config) -> State:
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
        if decided != before or state.kept(layout):
            state.save(layout, decided)
        state.show_current(layout, decided)
    except OSError as error:
        unwritten_start = decided.trial is not None and state.load(layout) != decided
        if error.errno not in space.UNWRITABLE or (unwritten_start and decided.previous is None):
            raise
        logs.event("unwritable", f"{layout.state} cannot be written: {_one_line(error)}", logging.CRITICAL)
        if unwritten_start:
            reason = "on trial, and its start cannot be counted"
            _log_rollback(decided.current, decided.previous, reason, logging.CRITICAL)
            decided = decided.rolled_back(None)
        if state.load(layout) != decided:
            state.keep(layout, decided, error, in_process=True)
    return decided


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
