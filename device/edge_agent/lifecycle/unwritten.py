"""Describe a state that is in effect although it could not be written to state.json, for the results of commands."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.core import state
from edge_agent.core.agent_state import State
from edge_agent.core.config import Config, TrialRules


@dataclass(frozen=True)
class UnwrittenState:
    """A state that is in effect although it could not be written to state.json. The service tries again each second.

    Attributes:
        reason: The reason why state.json could not be written.
        after_reboot: What a reboot does if state.json has not been written until then.
    """

    reason: str
    after_reboot: str


def unwritten(config: Config) -> UnwrittenState | None:
    """Return why the present state is not in state.json, and what a reboot does; None if it is in state.json.

    Raises ConfigurationError if state.json is damaged.
    """
    kept = state.kept(config.layout)
    if kept is None:
        return None
    return UnwrittenState(kept.reason, _after_reboot(config.trial, state.load_written(config.layout)))


def _after_reboot(rules: TrialRules, written: State) -> str:
    """Describe what the service does after a reboot if state.json has the state `written` (see `lifecycle.boot`)."""
    current, previous = written.current or "no release", written.previous or "no release"
    if written.trial is None:
        return f"a reboot returns to {current}"
    if written.trial.starts >= rules.starts:
        return f"a reboot loads {previous}"
    return (
        f"a reboot loads {previous}; but if the disk can be written again at the reboot, it continues the trial of "
        f"{current}"
    )
