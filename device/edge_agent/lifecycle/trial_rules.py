"""The rules of a trial: whether a release may be put on trial, and when it is confirmed or rolled back.

The rules are pure functions. `edge_agent.service.trial_judge` calls them with the observations of the running service.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_agent.core.agent_state import State
from edge_agent.core.config import TrialRules
from edge_agent.core.errors import TrialError

# With fewer errors than this, the error rate is not judged, because one client's unusual request can cause an error.
LEAST_ERRORS = 5


@dataclass(frozen=True)
class TrialObservation:
    """The observations of the service since it loaded the release on trial.

    Attributes:
        loaded_s: Seconds since the release was loaded, measured with the monotonic clock.
        healthy_s: Seconds since the last failed request or probe, or since the release was loaded.
        answered: Number of requests and probes for which the model returned a result.
        errors: Number of requests and probes for which the model failed.
        failure: The reason why the last probe failed, such as a wrong output; empty if the probe passed.
    """

    loaded_s: float
    healthy_s: float
    answered: int
    errors: int
    failure: str = ""


@dataclass(frozen=True)
class Decision:
    """The decision about the release on trial.

    Attributes:
        action: The action to take: `confirm`, `back` (roll back) or `wait`.
        reason: The reason for the action, or the condition that is not met yet.
    """

    action: Literal["confirm", "back", "wait"]
    reason: str


def require_not_bad(state: State, release: str) -> None:
    """Raise TrialError if the release failed on this device before."""
    if release in state.bad:
        raise TrialError(
            release,
            f"failed on this device: {state.bad[release]}",
            "a release that has not failed on this device",
            f"install another version; or fix the cause, then allow this one again: edge-agent forget {release}",
        )


def count_start(rules: TrialRules, state: State) -> tuple[State, str | None]:
    """Count one start of the service with the release on trial, or roll back if the release has started too often.

    Returns the new state, and the reason for the rollback or None. A start is counted before the model is loaded, so
    that the start is counted even if the model crashes the process.
    """
    trial = state.trial
    if trial is None:
        return state, None
    if trial.starts >= rules.starts:
        reason = f"not confirmed within {trial.starts} starts of the service"
        return state.rolled_back(reason), reason
    return state.started(), None


def decide(rules: TrialRules, observation: TrialObservation) -> Decision:
    """Decide whether to confirm the release on trial, roll it back, or wait."""
    if observation.failure:
        return Decision("back", observation.failure)
    errors, total = observation.errors, observation.answered + observation.errors
    # The first few requests cannot show whether the error rate exceeds 1%, so both numbers must be large enough.
    if errors >= LEAST_ERRORS and total >= max(rules.inferences, 1) and errors > rules.error_share * total:
        return Decision("back", f"{errors} of {total} inferences failed, more than {rules.error_share:.3g} of them")
    missing = []
    if observation.healthy_s < rules.seconds:
        missing.append(f"healthy for {observation.healthy_s:.0f} of {rules.seconds:g} s")
    if observation.answered < rules.inferences:
        missing.append(f"{observation.answered} of {rules.inferences} inferences")
    if rules.confirm == "auto" and not missing:
        return Decision("confirm", f"healthy for {observation.healthy_s:.0f} s, {observation.answered} inferences")
    if observation.loaded_s >= rules.deadline_s:
        lacking = ", ".join(missing) or "no `edge-agent confirm`"
        return Decision("back", f"not confirmed within {rules.deadline_s:g} s ({lacking})")
    return Decision("wait", ", ".join(missing) or "healthy; waiting for `edge-agent confirm`")
