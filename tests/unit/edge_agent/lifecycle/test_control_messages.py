"""The messages of the service: a newer service may send more fields, and none of the declared ones may be missing."""

from __future__ import annotations

from typing import Any

import pytest
from edge_agent.lifecycle.control_messages import LoadedModel, ServiceStatus, ShadowSummary, TrialProgress

LOADED = {"release": "pump@1.0.0", "target": "onnx-fp32", "sha256": "ab"}
TRIAL = {
    "action": "wait",
    "reason": "healthy for 3 s of 60 s",
    "healthy_seconds": 3.0,
    "answered": 4,
    "errors": 0,
    "left_seconds": 57.0,
}
STATUS = {
    "loaded": LOADED,
    "healthy": True,
    "reason": "healthy",
    "ready": True,
    "trial": TRIAL,
    "uptime_seconds": 3.0,
    "events": [{"time": "2026-01-01T00:00:00Z", "event": "loaded", "message": "pump@1.0.0"}],
}
PERCENTILES = {"p50": 1.0, "p95": 2.0}
SHADOW = {
    "release": "pump@2.0.0",
    "target": "onnx-fp32",
    "current": "pump@1.0.0",
    "samples": 10,
    "dropped": 0,
    "errors": 0,
    "agreement": {"share": 1.0, "low": 0.7, "high": 1.0, "confidence": 0.95},
    "latency_ms": {"current": PERCENTILES, "candidate": PERCENTILES},
    "seconds": 5.0,
    "ended": None,
}


def with_more(value: Any) -> Any:
    """Return the value with an unknown field in each of its objects."""
    if isinstance(value, dict):
        return {**{name: with_more(each) for name, each in value.items()}, "from_a_newer_version": 1}
    return [with_more(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("message", "value"), [(ServiceStatus, STATUS), (ShadowSummary, SHADOW)])
def test_fields_of_a_newer_service_are_ignored(message: Any, value: dict[str, Any]) -> None:
    assert message.from_json(with_more(value)) == message.from_json(value)


@pytest.mark.parametrize(("message", "value"), [(LoadedModel, LOADED), (TrialProgress, TRIAL), (ShadowSummary, SHADOW)])
def test_a_missing_field_is_an_error(message: Any, value: dict[str, Any]) -> None:
    for name in value:
        with pytest.raises(KeyError, match=name):
            message.from_json({key: each for key, each in value.items() if key != name})
