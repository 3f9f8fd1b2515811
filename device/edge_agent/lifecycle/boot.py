"""What the service does before it loads anything: which release to start with."""

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
    """`known`: what to start with. `unwritten`: what state.json says instead, where it could not be written."""

    state: State = field(default_factory=State)
    unwritten_state: State | None = None


def boot(config: Config) -> BootResult:
    """Which release to start with: counts the start of a trial, goes back where it must.

    Without a trial there is nothing to write: neither a lock that is held (an install unpacks, say) nor a disk that is
    full or read-only keeps a device from serving what it can read. With a trial whose start cannot be counted the
    device goes back: a release that crashes would do so for ever. Raises BusyError, and OSError where nothing is to
    go back to.
    """
    layout = config.layout
    point("serve.before_boot")
    try:
        with state.locked(layout, LOCK_S):
            booted = _decided(config)
    except BusyError as error:
        known = state.load(layout)
        if known.trial:
            raise
        logs.event("waiting", f"started without the lock: {_line(error)}", logging.WARNING)
        booted = BootResult(_whole(config, known))
    point("serve.after_boot")
    return booted


def current_state(config: Config, booted: BootResult) -> State:
    """What state.json says, or what it should say since `boot`; written as soon as that is possible."""
    found = state.load(config.layout)
    if found != booted.unwritten_state:
        return found
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


def _decided(config: Config) -> BootResult:
    """As `boot`, under the lock."""
    layout = config.layout
    try:
        state.load(layout)
    except ConfigurationError as error:
        state.restore(layout)
        logs.event("state", f"the last copy is taken, its damage kept beside it: {_line(error)}", logging.CRITICAL)
    before = state.load(layout)
    known = _whole(config, before)
    known, reason = trial_rules.count_start(config.trial, known)
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
        kept = state.load(layout)
        if error.errno not in space.UNWRITABLE or (kept != known and known.trial and known.previous is None):
            raise
        logs.event("unwritable", f"{layout.state} cannot be written: {_line(error)}", logging.CRITICAL)
        if kept != known and known.trial:
            text = f"went back from {known.current}, on trial: its start cannot be counted"
            logs.event("rollback", text, logging.CRITICAL, release=known.current, now=known.previous)
            known = known.rolled_back(None)
        return BootResult(known, kept if kept != known else None)
    return BootResult(known)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _whole(config: Config, known: State) -> State:
    """Where the current slot is damaged and the previous one is not, go back. A damaged disk makes no release bad."""
    if known.current is None:
        return known
    try:
        slots.verify(config.layout, known.current)
        return known
    except (TrustError, NoReleaseError) as error:
        fault = str(error)
    logs.event("damaged", f"the slot is damaged: {fault}", logging.CRITICAL, release=known.current)
    if known.previous is None:
        return known
    try:
        slots.verify(config.layout, known.previous)
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
