"""The parts of the report about the loaded release (`edge-agent report`). Each function returns some of its fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from edge_agent.monitoring.release_statistics import ReleaseStatistics

_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def _inferences(statistics: ReleaseStatistics) -> dict[str, Any]:
    inferences, errors = statistics.inferences, sum(statistics.errors.values())
    return {
        "inferences": inferences,
        "errors": errors,
        "error_reasons": dict(statistics.errors),
        "error_share": errors / (inferences + errors) if inferences + errors else 0.0,
        "latency_s": {name: statistics.latency.quantile(share) for name, share in _QUANTILES.items()},
        "queue_s": {name: statistics.queue.quantile(share) for name, share in _QUANTILES.items()},
    }


def _predictions(statistics: ReleaseStatistics) -> dict[str, Any]:
    mean = statistics.confidence_sum / statistics.inferences if statistics.inferences else None
    predictions = dict(zip(statistics.classes, statistics.per_class, strict=True))
    return {"predictions": predictions, "confidence_mean": mean}


def _feedback(statistics: ReleaseStatistics) -> dict[str, Any]:
    results = {name: sum(counts[name] for counts in statistics.feedback.values()) for name in ("correct", "wrong")}
    labelled = sum(results.values())
    accuracy = results["correct"] / labelled if labelled else None
    return {"feedback": {**results, "n": labelled, "accuracy": accuracy}}


RELEASE_PARTS: dict[str, Callable[[ReleaseStatistics], dict[str, Any]]] = {
    "inferences": _inferences,
    "predictions": _predictions,
    "drift": lambda statistics: {"drift": statistics.drift()},
    "feedback": _feedback,
}


def valid_json(compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return `compute()`. Raises ValueError or TypeError if JSON cannot represent the result, such as NaN."""
    value = compute()
    json.dumps(value, allow_nan=False)
    return value
