"""fleet.execution.live_progress: what a rollout says while it runs."""

from __future__ import annotations

import json

import pytest

from fleet.execution.live_progress import LiveProgress


def said(live: LiveProgress, **answer: object) -> None:
    event = {
        "event": "runner_on_ok",
        "event_data": {"task": "Run the fleet step", "res": {"stdout": json.dumps(answer)}},
    }
    live.on_event(event)


def test_a_wave_is_told_to_be_watched_from_look_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    live = LiveProgress()
    said(live, command="wave plan", again=True)  # a release that failed is tried again: no look
    said(live, command="wave open", wave="canary", go=True, reason="", bake_s=60.0)
    live._progress._next = 0.0
    live.poll()
    assert "bakes" not in capsys.readouterr().err

    for _ in range(2):
        said(live, command="wave bake", wave="canary", again=True)
        live._progress._next = 0.0
        live.poll()
        assert "wave canary bakes: 0 of 60 s" in capsys.readouterr().err
    said(live, command="wave judge", wave="canary", status="pass", reason="every check passed")
    live._progress._next = 0.0
    live.poll()
    assert "bakes" not in capsys.readouterr().err
