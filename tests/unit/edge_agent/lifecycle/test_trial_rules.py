"""The rules of a trial, as a table of states and numbers."""

from __future__ import annotations

import pytest
from edge_agent.core.config import TrialRules
from edge_agent.core.state import State, Trial
from edge_agent.lifecycle.trial_rules import TrialObservation, count_start, decide

RULES = TrialRules(seconds=60, inferences=20, error_share=0.01, starts=3, deadline_s=900)
MANUAL = TrialRules(confirm="manual", seconds=60, inferences=20, deadline_s=900)
ON_TRIAL = State(current="pump@2.0.0", previous="pump@1.0.0", trial=Trial("pump@2.0.0", "2026-01-01T00:00:00Z"))


@pytest.mark.parametrize(
    ("rules", "seen", "action", "reason"),
    [
        (RULES, TrialObservation(60, 60, 20, 0), "confirm", "healthy for 60 s, 20 inferences"),
        (RULES, TrialObservation(61, 59, 500, 1), "wait", "healthy for 59 of 60 s"),
        (RULES, TrialObservation(100, 100, 19, 0), "wait", "19 of 20 inferences"),
        (RULES, TrialObservation(0, 0, 0, 0), "wait", "healthy for 0 of 60 s, 0 of 20 inferences"),
        # A share is judged once there are enough answers to have one.
        (RULES, TrialObservation(5, 0, 3, 1), "wait", "healthy for 0 of 60 s, 3 of 20 inferences"),
        (RULES, TrialObservation(5, 0, 95, 5), "back", "5 of 100 inferences failed, more than 0.01 of them"),
        # Nor by a few errors, that one client's odd request may make.
        (RULES, TrialObservation(5, 0, 19, 4), "wait", "healthy for 0 of 60 s, 19 of 20 inferences"),
        (RULES, TrialObservation(5, 0, 0, 20), "back", "20 of 20 inferences failed, more than 0.01 of them"),
        (RULES, TrialObservation(200, 60, 99, 1), "confirm", "healthy for 60 s, 99 inferences"),
        # One wrong golden sample is enough, whatever else was seen.
        (RULES, TrialObservation(60, 60, 9999, 0, "off by 0.3"), "back", "off by 0.3"),
        (RULES, TrialObservation(899, 0, 0, 0), "wait", "healthy for 0 of 60 s, 0 of 20 inferences"),
        (RULES, TrialObservation(900, 900, 19, 0), "back", "not confirmed within 900 s (19 of 20 inferences)"),
        # What is confirmed in the last moment is confirmed.
        (RULES, TrialObservation(900, 900, 20, 0), "confirm", "healthy for 900 s, 20 inferences"),
        (MANUAL, TrialObservation(60, 60, 20, 0), "wait", "healthy; waiting for `edge-agent confirm`"),
        (MANUAL, TrialObservation(900, 900, 20, 0), "back", "not confirmed within 900 s (no `edge-agent confirm`)"),
        (TrialRules(seconds=0, inferences=0), TrialObservation(0, 0, 0, 0), "confirm", "healthy for 0 s, 0 inferences"),
        (TrialRules(inferences=0, error_share=1.0, seconds=0), TrialObservation(1, 0, 0, 5), "confirm", "healthy"),
    ],
)
def test_a_trial_is_decided_by_what_was_seen(
    rules: TrialRules, seen: TrialObservation, action: str, reason: str
) -> None:
    decision = decide(rules, seen)

    assert decision.action == action
    assert decision.reason.startswith(reason)


def test_each_start_on_trial_is_counted_until_there_are_too_many() -> None:
    known = ON_TRIAL
    for start in (1, 2, 3):
        known, reason = count_start(RULES, known)
        assert reason is None
        assert known.trial is not None
        assert known.trial.starts == start

    back, reason = count_start(RULES, known)

    assert reason == "not confirmed within 3 starts of the service"
    assert back.current == "pump@1.0.0"
    assert back.trial is None
    assert back.bad == {"pump@2.0.0": reason}


@pytest.mark.parametrize("known", [State(), State(current="pump@1.0.0")])
def test_a_start_without_a_trial_changes_nothing(known: State) -> None:
    assert count_start(RULES, known) == (known, None)


def test_the_first_release_of_all_goes_back_to_none() -> None:
    first = State(current="pump@1.0.0", trial=Trial("pump@1.0.0", "2026-01-01T00:00:00Z", starts=3))

    back, reason = count_start(RULES, first)

    assert (back.current, back.previous, back.trial) == (None, None, None)
    assert "pump@1.0.0" in back.bad
    assert reason
