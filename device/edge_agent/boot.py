"""What the service does before it loads anything: which release to start with."""

from __future__ import annotations

import errno
import logging

from edge_agent import logs, slots, state, trial
from edge_agent.config import Config
from edge_agent.errors import BusyError, NoReleaseError, TrustError
from edge_agent.faults import point
from edge_agent.state import State

LOCK_S = 10.0
# The state cannot be written, and a start need not fail of it. An error of the disk itself is none of these.
UNWRITABLE = (errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def boot(config: Config) -> State:
    """Which release to start with: counts the start of a trial, goes back where it must.

    Without a trial there is nothing to write: neither a lock that is held (an install unpacks, say) nor a disk that is
    full or read-only keeps a device from serving what it can read. Raises BusyError, OSError with a trial.
    """
    layout = config.layout
    point("serve.before_boot")
    try:
        with state.locked(layout, LOCK_S):
            known = _decided(config)
    except BusyError as error:
        known = state.load(layout)
        if known.trial:
            raise
        logs.event("waiting", f"started without the lock: {_line(error)}", logging.WARNING)
        known = _whole(config, known)
    point("serve.after_boot")
    return known


def _decided(config: Config) -> State:
    """As `boot`, under the lock."""
    layout = config.layout
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
    try:
        slots.recover(layout)
        if known != before:
            state.save(layout, known)
        state.show_current(layout, known)
    except OSError as error:
        if error.errno not in UNWRITABLE or known.trial or state.load(layout).trial:
            raise
        logs.event("unwritable", f"{layout.state} cannot be written: {_line(error)}", logging.CRITICAL)
    return known


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


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
