"""Ends the trial of the loaded release: confirms it, or goes back to the one before.

edge_agent.lifecycle.trial_rules has the rules.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from edge_agent.core import state
from edge_agent.core.config import Config
from edge_agent.core.errors import BusyError
from edge_agent.core.fault_points import point
from edge_agent.core.state import State
from edge_agent.lifecycle import trial_rules
from edge_agent.monitoring.health import Health
from edge_agent.service.events import Events
from edge_agent.service.loader import Loader


class TrialJudge:
    """Decides by what `health` has seen; `loader` follows what is decided."""

    def __init__(self, config: Config, loader: Loader, health: Health, events: Events) -> None:
        self.config, self._loader, self._health, self._events = config, loader, health, events

    async def judge(self) -> None:
        """Confirm the release on trial, go back from it, or wait."""
        loader = self._loader
        on = loader.state.trial
        if on is None:
            return
        loaded = loader.engine.loaded
        if loader.unreadable_since is not None:  # what the device does not let be read makes no release bad
            if time.monotonic() - loader.unreadable_since >= self.config.trial.deadline_s:
                await self._change("rollback", on, lambda s: s.rolled_back(None), f"not loaded: {loader.error}")
        elif (error := loader.error) is not None:
            await self._change("rollback", on, lambda s: s.rolled_back(f"not loaded: {error}"), error)
        elif loaded is not None and loaded.release == on.release:
            decision = trial_rules.decide(self.config.trial, self._health.observation())
            if decision.action == "confirm":
                await self._change("confirm", on, State.confirmed, decision.reason)
            elif decision.action == "back":
                await self._change("rollback", on, lambda s: s.rolled_back(decision.reason), decision.reason)

    async def _change(self, what: str, on: state.Trial, change: Callable[[State], State], reason: str) -> None:
        """Write what was decided, unless somebody else decided meanwhile; then follow it."""

        def write() -> bool:
            with state.locked(self.config.layout, wait_s=0.0):
                known = state.load(self.config.layout)
                if known.trial is None or known.trial.release != on.release:
                    return False
                point(f"{what}.before")
                state.save(self.config.layout, change(known))
                point("rollback.after_state" if what == "rollback" else "confirm.after")
            return True

        try:
            written = await asyncio.to_thread(write)
        except (BusyError, OSError) as error:
            self._events.add("waiting", f"{what} has to wait: {' '.join(str(error).split())}", logging.WARNING)
            return
        if written:
            level = logging.WARNING if what == "rollback" else logging.INFO
            text = f"{'went back from' if what == 'rollback' else 'confirmed'} {on.release}: {reason}"
            self._events.add(what, text, level, release=on.release)
            await self._loader.follow(retry=True)
            if what == "rollback":
                point("rollback.after")

    def status(self) -> dict[str, Any]:
        """For `edge-agent status`: the decision as it stands, and the numbers under it."""
        seen, rules = self._health.observation(), self.config.trial
        if not self._loader.up_to_date:  # what is seen is of the release before
            seen = trial_rules.TrialObservation(0.0, 0.0, 0, 0)
        decision = trial_rules.decide(rules, seen)
        return {
            "action": decision.action,
            "reason": decision.reason,
            "healthy_seconds": round(seen.healthy_s, 1),
            "answered": seen.answered,
            "errors": seen.errors,
            "left_seconds": round(max(rules.deadline_s - seen.loaded_s, 0.0), 1),
        }
