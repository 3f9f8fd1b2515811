"""The messages that the running service sends over `control.sock`, as typed objects.

The service writes them as JSON (`edge_agent.service.control_server`); `control_client` parses them with `from_json`.
Every `from_json` raises KeyError or TypeError if a field is missing or has the wrong type. Fields that a message does
not declare are ignored, because a service of a newer version may send more fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class LoadedModel:
    """The model that the service has in memory.

    Attributes:
        release: The release, as NAME@VERSION.
        target: The target whose model file is loaded, such as `onnx-fp32`.
        sha256: SHA-256 digest of the model file, computed when the file was loaded, in hexadecimal digits.
    """

    release: str
    target: str
    sha256: str

    @staticmethod
    def from_json(value: Mapping[str, Any] | None) -> LoadedModel | None:
        """Return the loaded model, or None if the service has not loaded one."""
        return None if value is None else LoadedModel(**_declared(LoadedModel, value))


@dataclass(frozen=True)
class ServiceModel:
    """The result of `POST /reconcile`, which makes the service load the release that state.json names.

    Attributes:
        running: False if no service is running; the other two fields are then None.
        loaded: The model that the service has in memory after the request, or None.
        error: The reason why the release could not be loaded, or None.
    """

    running: bool
    loaded: LoadedModel | None
    error: str | None


@dataclass(frozen=True)
class TrialProgress:
    """The progress of a trial at the time of the service's response.

    Attributes:
        action: The service's decision at this time: `confirm`, `back` (roll back) or `wait`.
        reason: The reason for the action, or the condition that is not met yet.
        healthy_seconds: Seconds since the last failed request or probe, or since the model was loaded.
        answered: Number of requests and probes for which the model returned a result.
        errors: Number of requests and probes for which the model failed.
        left_seconds: Seconds until the deadline, at which the agent rolls back a release that is not confirmed.
    """

    action: str
    reason: str
    healthy_seconds: float
    answered: int
    errors: int
    left_seconds: float

    @staticmethod
    def from_json(value: Mapping[str, Any] | None) -> TrialProgress | None:
        """Return the progress of the trial, or None if no release is on trial."""
        return None if value is None else TrialProgress(**_declared(TrialProgress, value))


@dataclass(frozen=True)
class ServiceEvent:
    """An event of the service: its time (ISO 8601, UTC), its name and its message."""

    time: str
    event: str
    message: str


@dataclass(frozen=True)
class ServiceStatus:
    """The service's response to `GET /status`. A field that the service did not send is None.

    Attributes:
        loaded: The model in memory.
        healthy: True if the current release is loaded and its model answers requests and probes correctly.
        reason: `healthy`, or the reason why the service is not healthy.
        ready: True if a model is loaded.
        trial: Progress of the trial, or None if no release is on trial.
        uptime_seconds: Seconds since the service started.
        events: The last events, oldest first.
    """

    loaded: LoadedModel | None = None
    healthy: bool | None = None
    reason: str | None = None
    ready: bool | None = None
    trial: TrialProgress | None = None
    uptime_seconds: float | None = None
    events: list[ServiceEvent] | None = None

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> ServiceStatus:
        """Return the JSON of the response as a ServiceStatus."""
        events = value.get("events")
        return ServiceStatus(
            loaded=LoadedModel.from_json(value.get("loaded")),
            healthy=value.get("healthy"),
            reason=value.get("reason"),
            ready=value.get("ready"),
            trial=TrialProgress.from_json(value.get("trial")),
            uptime_seconds=value.get("uptime_seconds"),
            events=None if events is None else [ServiceEvent(**_declared(ServiceEvent, event)) for event in events],
        )


@dataclass(frozen=True)
class Percentiles:
    """Two percentiles of a model's latency in milliseconds; None before the first measurement."""

    p50: float | None
    p95: float | None


@dataclass(frozen=True)
class Agreement:
    """The fraction of inputs for which two releases predict the same class, with its Wilson confidence interval.

    Attributes:
        share: The fraction, from 0 to 1; None before the first comparison.
        low: Lower bound of the interval.
        high: Upper bound of the interval.
        confidence: Confidence level of the interval, such as 0.95.
    """

    share: float | None
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class ShadowLatency:
    """Latency of the current release and of the candidate release, measured on the same inputs."""

    current: Percentiles
    candidate: Percentiles


@dataclass(frozen=True)
class ShadowSummary:
    """The results so far of the comparison of a candidate release with the current release.

    Attributes:
        release: The candidate, as NAME@VERSION.
        target: The target of the candidate that runs in the comparison, such as `onnx-fp32`.
        current: The release that answers the requests.
        samples: Number of inputs that the candidate received.
        dropped: Number of inputs that the candidate did not receive because it was too slow.
        errors: Number of inputs on which the candidate failed.
        agreement: Fraction of inputs for which both releases predict the same class.
        latency_ms: Latency of both releases, in milliseconds.
        seconds: Duration of the comparison so far, in seconds.
        ended: The reason why the comparison ended, or None while the comparison runs.
    """

    release: str
    target: str
    current: str
    samples: int
    dropped: int
    errors: int
    agreement: Agreement
    latency_ms: ShadowLatency
    seconds: float
    ended: str | None

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> ShadowSummary:
        """Return one JSON line of the service's response as a ShadowSummary."""
        latency = _declared(ShadowLatency, value["latency_ms"])
        return ShadowSummary(
            **{
                **_declared(ShadowSummary, value),
                "agreement": Agreement(**_declared(Agreement, value["agreement"])),
                "latency_ms": ShadowLatency(
                    **{name: Percentiles(**_declared(Percentiles, times)) for name, times in latency.items()}
                ),
            }
        )


def _declared(message: type, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `value` that the class `message` declares. Raises KeyError if a field is missing."""
    return {each.name: value[each.name] for each in fields(message)}
