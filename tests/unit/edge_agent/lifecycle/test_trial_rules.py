"""The rules of a trial, as a table of states and numbers."""

from __future__ import annotations

import pytest
from edge_agent.core.agent_state import State, Trial
from edge_agent.core.config import TrialRules
from edge_agent.lifecycle.trial_rules import TrialObservation, count_start, decide

RULES = TrialRules(seconds=60, inferences=20, error_share=0.01, starts=3, deadline_s=900)
MANUAL = TrialRules(confirm="manual", seconds=60, inferences=20, deadline_s=900)
ON_TRIAL = State(current="pump@2.0.0", previous="pump@1.0.0", trial=Trial("pump@2.0.0", "2026-01-01T00:00:00Z"))


@pytest.mark.parametrize(
    ("rules", "observation", "action", "reason"),
    [
        (RULES, TrialObservation(60, 60, 20, 0), "confirm", "healthy for 60 s, 20 inferences"),
        (RULES, TrialObservation(61, 59, 500, 1), "wait", "healthy for 59 of 60 s"),
        (RULES, TrialObservation(100, 100, 19, 0), "wait", "19 of 20 inferences"),
        (RULES, TrialObservation(0, 0, 0, 0), "wait", "healthy for 0 of 60 s, 0 of 20 inferences"),
        # A share is judged once there are enough answers to have one.
        (RULES, TrialObservation(5, 0, 3, 1), "wait", "healthy for 0 of 60 s, 3 of 20 inferences"),
        (RULES, TrialObservation(5, 0, 95, 5), "back", "5 of 100 inferences failed, more than 0.01 of them"),
        # A few errors, which an unusual request of one client may cause, are not judged.
        (RULES, TrialObservation(5, 0, 19, 4), "wait", "healthy for 0 of 60 s, 19 of 20 inferences"),
        (RULES, TrialObservation(5, 0, 0, 20), "back", "20 of 20 inferences failed, more than 0.01 of them"),
        (RULES, TrialObservation(200, 60, 99, 1), "confirm", "healthy for 60 s, 99 inferences"),
        # One wrong golden sample is enough, whatever else was observed.
        (RULES, TrialObservation(60, 60, 9999, 0, "off by 0.3"), "back", "off by 0.3"),
        (RULES, TrialObservation(899, 0, 0, 0), "wait", "healthy for 0 of 60 s, 0 of 20 inferences"),
        (RULES, TrialObservation(900, 900, 19, 0), "back", "not confirmed within 900 s (19 of 20 inferences)"),
        # The conditions are met at the last moment.
        (RULES, TrialObservation(900, 900, 20, 0), "confirm", "healthy for 900 s, 20 inferences"),
        (MANUAL, TrialObservation(60, 60, 20, 0), "wait", "healthy; waiting for `edge-agent confirm`"),
        (MANUAL, TrialObservation(900, 900, 20, 0), "back", "not confirmed within 900 s (no `edge-agent confirm`)"),
        (TrialRules(seconds=0, inferences=0), TrialObservation(0, 0, 0, 0), "confirm", "healthy for 0 s, 0 inferences"),
        (TrialRules(inferences=0, error_share=1.0, seconds=0), TrialObservation(1, 0, 0, 5), "confirm", "healthy"),
    ],
)
def test_a_trial_is_decided_by_the_observation(
    rules: TrialRules, observation: TrialObservation, action: str, reason: str
) -> None:
    decision = decide(rules, observation)

    assert decision.action == action
    assert decision.reason.startswith(reason)


def test_each_start_on_trial_is_counted_until_there_are_too_many() -> None:
    state = ON_TRIAL
    for start in (1, 2, 3):
        state, reason = count_start(RULES, state)
        assert reason is None
        assert state.trial is not None
        assert state.trial.starts == start

    state, reason = count_start(RULES, state)

    assert reason == "not confirmed within 3 starts of the service"
    assert state.current == "pump@1.0.0"
    assert state.trial is None
    assert state.bad == {"pump@2.0.0": reason}


@pytest.mark.parametrize("state", [State(), State(current="pump@1.0.0")])
def test_a_start_without_a_trial_changes_nothing(state: State) -> None:
    assert count_start(RULES, state) == (state, None)


def test_the_first_release_is_rolled_back_to_none() -> None:
    first = State(current="pump@1.0.0", trial=Trial("pump@1.0.0", "2026-01-01T00:00:00Z", starts=3))

    state, reason = count_start(RULES, first)

    assert (state.current, state.previous, state.trial) == (None, None, None)
    assert "pump@1.0.0" in state.bad
    assert reason
