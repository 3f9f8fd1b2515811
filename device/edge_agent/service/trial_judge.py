"""End the trial of the loaded release: confirm the release, or roll back to the previous one.

edge_agent.lifecycle.trial_rules has the rules for this decision.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from edge_agent.core import state
from edge_agent.core.agent_state import State, Trial
from edge_agent.core.config import Config
from edge_agent.core.errors import BusyError
from edge_agent.core.fault_points import point
from edge_agent.lifecycle import trial_rules
from edge_agent.monitoring.health import Health
from edge_agent.service.events import Events
from edge_agent.service.loader import Loader


class TrialJudge:
    """Confirm the release on trial or roll it back, based on the observations of its health."""

    def __init__(self, config: Config, loader: Loader, health: Health, events: Events) -> None:
        """Create the judge from the parts of the service that it uses.

        Args:
            config: The agent's configuration.
            loader: The loader, which loads the release that is current after a decision.
            health: The object that observes the loaded release.
            events: The events to which the judge adds its decisions.
        """
        self.config, self._loader, self._health, self._events = config, loader, health, events

    async def judge(self) -> None:
        """Confirm the release on trial, roll it back, or wait. Do nothing if no release is on trial."""
        loader = self._loader
        current_trial = loader.state.trial
        if current_trial is None:
            return
        loaded = loader.engine.loaded
        if loader.unreadable_since is not None:  # a disk that cannot be read must not mark a release as bad
            if time.monotonic() - loader.unreadable_since >= self.config.trial.deadline_s:
                reason = f"not loaded: {loader.error}"
                await self._apply("rollback", current_trial, lambda s: s.rolled_back(None), reason)
        elif (error := loader.error) is not None:
            await self._apply("rollback", current_trial, lambda s: s.rolled_back(f"not loaded: {error}"), error)
        elif loaded is not None and loaded.release == current_trial.release:
            decision = trial_rules.decide(self.config.trial, self._health.observation())
            if decision.action == "confirm":
                await self._apply("confirm", current_trial, State.confirmed, decision.reason)
            elif decision.action == "back":
                reason = decision.reason
                await self._apply("rollback", current_trial, lambda s: s.rolled_back(reason), reason)

    async def _apply(self, action: str, current_trial: Trial, change: Callable[[State], State], reason: str) -> None:
        """Write the decision to state.json, and load the release that is then current.

        If another process has ended the trial, do nothing. If the lock is held, postpone the decision. If the disk
        cannot be written, postpone a confirmation, but keep a rollback in memory and make it at once.
        """
        layout = self.config.layout

        def write() -> bool:
            with state.locked(layout, wait_s=0.0):
                known_state = state.load(layout)
                if known_state.trial is None or known_state.trial.release != current_trial.release:
                    return False
                point(f"{action}.before")
                if action == "rollback":
                    state.save_or_keep(layout, change(known_state), in_process=True)
                else:
                    state.save(layout, change(known_state))
                point("rollback.after_state" if action == "rollback" else "confirm.after")
            return True

        try:
            written = await asyncio.to_thread(write)
        except (BusyError, OSError) as error:
            self._events.add("waiting", f"{action} is postponed: {' '.join(str(error).split())}", logging.WARNING)
            return
        if written:
            level = logging.WARNING if action == "rollback" else logging.INFO
            text = f"{'rolled back from' if action == 'rollback' else 'confirmed'} {current_trial.release}: {reason}"
            self._events.add(action, text, level, release=current_trial.release)
            if kept := await asyncio.to_thread(state.kept, layout):
                text = f"{layout.state_file} cannot be written: {kept.reason}; the rollback is kept in memory"
                self._events.add("unwritable", text, logging.CRITICAL, release=current_trial.release)
            await self._loader.follow(retry=True)
            if action == "rollback":
                point("rollback.after")

    def status(self) -> dict[str, Any]:
        """Return the present decision about the trial, with the observations behind it, for `edge-agent status`."""
        observation, rules = self._health.observation(), self.config.trial
        if not self._loader.up_to_date:  # the observations concern the previous release
            observation = trial_rules.TrialObservation(0.0, 0.0, 0, 0)
        decision = trial_rules.decide(rules, observation)
        return {
            "action": decision.action,
            "reason": decision.reason,
            "healthy_seconds": round(observation.healthy_s, 1),
            "answered": observation.answered,
            "errors": observation.errors,
            "left_seconds": round(max(rules.deadline_s - observation.loaded_s, 0.0), 1),
        }
