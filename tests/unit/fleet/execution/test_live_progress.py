"""The progress of a rollout while it runs."""

from __future__ import annotations

import json

import pytest

from fleet.execution.live_progress import LiveProgress


def step_prints(live: LiveProgress, **output: object) -> None:
    event = {
        "event": "runner_on_ok",
        "event_data": {"task": "Run the fleet step", "res": {"stdout": json.dumps(output)}},
    }
    live.on_event(event)


def test_a_bake_is_shown_from_check_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    live = LiveProgress()
    step_prints(live, command="wave plan", again=True)  # `again` retries a failed release here: it is not a check
    step_prints(live, command="wave open", wave="canary", go=True, reason="", bake_s=60.0)
    live._progress._next = 0.0
    live.poll()
    assert "bakes" not in capsys.readouterr().err

    for _ in range(2):
        step_prints(live, command="wave bake", wave="canary", again=True)
        live._progress._next = 0.0
        live.poll()
        assert "wave canary bakes: 0 of 60 s" in capsys.readouterr().err
    step_prints(live, command="wave judge", wave="canary", status="pass", reason="every check passed")
    live._progress._next = 0.0
    live.poll()
    assert "bakes" not in capsys.readouterr().err
