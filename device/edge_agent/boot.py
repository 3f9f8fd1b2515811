"""What the service does before it loads anything: which release to start with."""

from __future__ import annotations

import logging

from edge_agent import logs, slots, state, trial
from edge_agent.config import Config
from edge_agent.errors import NoReleaseError, TrustError
from edge_agent.faults import point
from edge_agent.state import State


def boot(config: Config) -> State:
    """Which release to start with: counts the start of a trial, goes back where it must. Raises BusyError."""
    layout = config.layout
    point("serve.before_boot")
    with state.locked(layout):
        slots.recover(layout)
        before = state.load(layout)
        known = _whole(config, before)
        known, reason = trial.at_start(config.trial, known)
        if reason:
            logs.event(
                "rollback",
                f"went back from {before.current}: {reason}",
                logging.WARNING,
                release=before.current,
                now=known.current,
            )
            known = _whole(config, known)
        if known != before:
            state.save(layout, known)
        state.show_current(layout, known)
    point("serve.after_boot")
    return known


def _whole(config: Config, known: State) -> State:
    """Where the current slot is damaged and the previous one is not, go back. A damaged disk makes no release bad."""
    if known.current is None:
        return known
    try:
        slots.check(config.layout, known.current)
        return known
    except (TrustError, NoReleaseError) as error:
        fault = str(error)
    logs.event("damaged", f"the slot is damaged: {fault}", logging.CRITICAL, release=known.current)
    if known.previous is None:
        return known
    try:
        slots.check(config.layout, known.previous)
    except (TrustError, NoReleaseError) as error:
        logs.event("damaged", f"the slot is damaged too: {error}", logging.CRITICAL, release=known.previous)
        return known
    logs.event(
        "rollback",
        f"went back from {known.current}: the slot is damaged",
        logging.CRITICAL,
        release=known.current,
        now=known.previous,
    )
    return known.rolled_back(None)
