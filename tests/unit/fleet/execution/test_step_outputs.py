"""The outputs of steps, which another step gets as its input."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.execution.step_outputs import PlanResult, PreflightResult, StepResult, WaveOpened


@pytest.mark.parametrize(
    ("result", "output"),
    [
        (PlanResult, {"command": "wave plan", "devices": {"a": {"release": "pump@1.0.0", "wave": 0}}, "pending": {}}),
        (PreflightResult, {"command": "wave preflight", "status": "refused", "unfit": {"a": "too small"}}),
        (WaveOpened, {"command": "wave open", "wave": "canaries", "go": False, "rest": ["b"], "looks": 3}),
        (WaveOpened, {"command": "wave open", "wave": "canaries", "go": True, "bake_s": 5, "new": {"x": 1}}),
    ],
)
def test_another_step_gets_exactly_what_a_step_printed(result: type[StepResult], output: dict[str, Any]) -> None:
    """No field is lost, and no default is added."""
    assert result.model_validate(output).as_json() == output
