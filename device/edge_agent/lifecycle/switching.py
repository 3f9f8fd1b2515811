"""Switching: to a release, on trial, and back.

The lock is held while the state is read and while it is written, not while a model is tried or loaded: a service that
starts meanwhile must not wait for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from edge_agent.core import state
from edge_agent.core.config import Config
from edge_agent.core.errors import NoReleaseError, ServiceError, TrialError
from edge_agent.core.fault_points import point
from edge_agent.core.state import State
from edge_agent.lifecycle import control_client
from edge_agent.lifecycle.trial_rules import require_not_bad

Result = dict[str, Any]
Say = Callable[[str], None]


def activate(config: Config, release: str, selftest: bool = True, say: Say = lambda text: None) -> Result:
    """Self-test a release, switch to it, on trial, and wait until the service answers with it.

    The release that the one on trial would go back to becomes current as it was: confirmed.
    """
    with state.locked(config.layout):
        known = state.load(config.layout)
        restored = known.trial is not None and known.previous == release and release not in known.bad
        if restored:
            _restore(config, known, release, None)
    if known.current == release or restored:
        what = "current again" if restored else "current"
        return {
            "release": release,
            "changed": restored,
            "previous": None if restored else known.previous,
            "trial": known.trial is not None and not restored,
            "service": _loaded(config, release, what),
            "selftest": None,
        }
    require_not_bad(known, release)
    return _tried(config, known, release, selftest, say)


def _tried(
    config: Config, known: State, release: str, selftest: bool, say: Say = lambda text: None, reason: str | None = None
) -> Result:
    """Self-test, switch, load. `reason`: why the release that is left is bad."""
    layout = config.layout
    target = fitting(config, release)
    tested = None
    if selftest:
        from edge_agent.inference import selftest as selftests

        say(f"self-test of {target}")
        tested = selftests.run(config, release, target)
    say("switching")
    with state.locked(layout):
        unchanged = state.load_unchanged(layout, known)
        if not layout.slot(release).is_dir():
            remedy = f"edge-agent install {release}"
            raise NoReleaseError(release, "was removed meanwhile", "an installed release", remedy)
        switched = unchanged.switched(release, state.now(), reason)
        point("activate.before_switch")
        state.save(layout, switched)
    point("activate.after_switch")
    point("activate.before_notify")
    try:
        service = control_client.reconcile(layout)
    except ServiceError as error:
        error_now = f"{error.found}; {release} is current, on trial: the service goes back unless it proves itself"
        raise ServiceError(error.where, error_now, error.expected, error.remedy) from None
    point("activate.after_notify")
    if service["error"]:
        why = f"not loaded: {service['error']}"
        with state.locked(layout):
            now = state.load(layout)
            if now.trial == switched.trial:  # else the service went back already
                state.save(layout, now.rolled_back(why))
        control_client.reconcile(layout)
        raise TrialError(
            release, why, "a model that loads", f"went back to {switched.previous or 'no release'}; see the log"
        )
    return {
        "release": release,
        "changed": True,
        "previous": switched.previous,
        "trial": True,
        "service": service,
        "selftest": tested,
    }


def rollback(config: Config, to: str | None = None, reason: str | None = None, say: Say = lambda text: None) -> Result:
    """Go back to the previous release, or to another installed one. Needs no network, and the repository no say.

    A release that was confirmed on this device before is current again at once. Another one has nothing to show for
    itself: it is self-tested and on trial, as `activate` has it.
    """
    layout = config.layout
    with state.locked(layout):
        known = state.load(layout)
        wanted = to or known.previous
        if wanted is None:
            others = [release for release in known.proven if release != known.current and known.was_confirmed(release)]
            raise NoReleaseError(
                str(layout.state_file),
                "there is no previous release to go back to",
                f"one that ran before; confirmed here once: {', '.join(others) or 'none'}",
                "name an installed one: edge-agent rollback --to RELEASE",
            )
        require_not_bad(known, wanted)
        there, proven = wanted == known.current, known.was_confirmed(wanted)
        if proven and not there:
            _restore(config, known, wanted, reason)
    if there or proven:
        service = control_client.reconcile(layout) if there else _loaded(config, wanted, "current again")
        trial = there and known.trial is not None
    else:
        service, trial = _tried(config, known, wanted, True, say, reason)["service"], True
    point("rollback.after")
    left = None if there else known.current
    return {"release": wanted, "left": left, "changed": not there, "trial": trial, "service": service}


def _restore(config: Config, known: State, wanted: str, reason: str | None) -> None:
    """Under the lock: a release that was confirmed here is current again, as it was. Raises as slots.verify does."""
    from edge_agent.storage import slots

    slots.verify(config.layout, wanted)
    point("rollback.before")
    keeps = known.previous if known.previous != wanted else None
    state.save(config.layout, dataclasses.replace(known.rolled_back(reason), current=wanted, previous=keeps))
    point("rollback.after_state")


def _loaded(config: Config, release: str, what: str) -> Result:
    """As `reconcile`. Raises ServiceError where the service could not load `release`."""
    service = control_client.reconcile(config.layout)
    if service["error"]:
        raise ServiceError(
            release,
            f"{what}, but not loaded: {service['error']}",
            "a service that has loaded it",
            f"mend a damaged slot: edge-agent install {release}; else {control_client.REMEDY}",
        )
    return service


def fitting(config: Config, release: str) -> str:
    """The target of an installed, undamaged release for this device. Raises TrustError, NoReleaseError, FitError."""
    from edge_agent.storage import slots, target_selection

    return target_selection.select_target(config, slots.verify(config.layout, release), None)
