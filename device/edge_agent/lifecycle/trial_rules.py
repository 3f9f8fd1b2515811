"""Which release may be tried, when one on trial is confirmed, and when the agent goes back: rules over a state and
numbers, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_agent.core.config import TrialRules
from edge_agent.core.errors import TrialError
from edge_agent.core.state import State

# A share of errors is judged from this many on: one request that nobody else sends says little about a release.
LEAST_ERRORS = 5


@dataclass(frozen=True)
class TrialObservation:
    """What this process saw of the release since it loaded it.

    `loaded_s`: seconds since then, by a clock that nobody sets. `healthy_s`: seconds without a failed probe or an
    error. `answered` counts inferences, probes included; `errors` those that the model failed. `failure`: what a
    probe (a golden sample) found, such as a wrong answer or none; or nothing.
    """

    loaded_s: float
    healthy_s: float
    answered: int
    errors: int
    failure: str = ""


@dataclass(frozen=True)
class Decision:
    """`reason`: why back, or what is still missing."""

    action: Literal["confirm", "back", "wait"]
    reason: str


def require_not_bad(state: State, release: str) -> None:
    """Raises TrialError for a release that failed here before."""
    if release in state.bad:
        raise TrialError(
            release,
            f"failed on this device: {state.bad[release]}",
            "a release that has not",
            f"install another version, or once the cause is gone: edge-agent forget {release}",
        )


def count_start(rules: TrialRules, state: State) -> tuple[State, str | None]:
    """The state after one more start of the service, and why it went back where it did.

    A start is counted before the model is loaded: a model that takes the process with it is counted too.
    """
    trial = state.trial
    if trial is None:
        return state, None
    if trial.starts >= rules.starts:
        reason = f"not confirmed within {trial.starts} starts of the service"
        return state.rolled_back(reason), reason
    return state.started(), None


def decide(rules: TrialRules, seen: TrialObservation) -> Decision:
    """What to do with the release on trial, after what was seen."""
    if seen.failure:
        return Decision("back", seen.failure)
    total = seen.answered + seen.errors
    # A few errors among the first answers say little about a share of 1%: enough of both first.
    if seen.errors >= LEAST_ERRORS and total >= max(rules.inferences, 1) and seen.errors > rules.error_share * total:
        return Decision(
            "back", f"{seen.errors} of {total} inferences failed, more than {rules.error_share:.3g} of them"
        )
    missing = []
    if seen.healthy_s < rules.seconds:
        missing.append(f"healthy for {seen.healthy_s:.0f} of {rules.seconds:g} s")
    if seen.answered < rules.inferences:
        missing.append(f"{seen.answered} of {rules.inferences} inferences")
    if rules.confirm == "auto" and not missing:
        return Decision("confirm", f"healthy for {seen.healthy_s:.0f} s, {seen.answered} inferences")
    if seen.loaded_s >= rules.deadline_s:
        lacking = ", ".join(missing) or "nobody confirmed it"
        return Decision("back", f"not confirmed within {rules.deadline_s:g} s ({lacking})")
    return Decision("wait", ", ".join(missing) or "healthy; waiting for `edge-agent confirm`")
