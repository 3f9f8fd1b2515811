"""The exported Prometheus metrics: name, type, labels and help text. docs/reference/metrics.md lists METRICS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MetricDescription:
    """The description of one metric. `name` has no suffix such as `_total`, `_info`, `_bucket`, `_sum` or `_count`."""

    name: str
    type: Literal["counter", "gauge", "histogram", "info"]
    labels: tuple[str, ...]
    help: str


METRICS = (
    MetricDescription(
        "edge_agent_healthy",
        "gauge",
        ("reason",),
        "Whether the current release is loaded and healthy: 1 for yes, 0 for no. The label is the reason.",
    ),
    MetricDescription(
        "edge_agent_part_failed",
        "gauge",
        ("output", "part"),
        "Whether a part of an output (metrics or report) failed the last time, and was left out: 1 for yes, 0 for no.",
    ),
    MetricDescription("edge_agent_trial", "gauge", (), "Whether the current release is on trial: 1 for yes, 0 for no."),
    MetricDescription(
        "edge_agent_trial_starts",
        "gauge",
        (),
        "Number of service starts with the release on trial; 0 if no release is on trial.",
    ),
    MetricDescription(
        "edge_agent_http_requests",
        "counter",
        ("path", "method", "code"),
        "Number of HTTP requests by route, method and status.",
    ),
    MetricDescription(
        "edge_agent_model",
        "info",
        ("release", "target", "sha256", "runtime"),
        "The loaded model: release, target, SHA-256 of the file, and runtime.",
    ),
    MetricDescription(
        "edge_agent_batch_samples_limit",
        "gauge",
        (),
        "Largest number of samples in one run of the model. It is 1 if samples must not be joined.",
    ),
    MetricDescription(
        "edge_agent_release", "info", ("release", "name", "version"), "The loaded release: its name and version."
    ),
    MetricDescription(
        "edge_agent_restarts", "counter", (), "Number of service restarts since the agent switched to the release."
    ),
    MetricDescription(
        "edge_agent_inferences", "counter", ("release", "target"), "Number of samples predicted by the loaded release."
    ),
    MetricDescription(
        "edge_agent_inference_errors", "counter", ("reason",), "Number of samples that the model failed to predict."
    ),
    MetricDescription(
        "edge_agent_inference_duration_seconds", "histogram", (), "Time in seconds that the model ran for a request."
    ),
    MetricDescription(
        "edge_agent_queue_duration_seconds",
        "histogram",
        (),
        "Time in seconds that a request waited before the model ran.",
    ),
    MetricDescription("edge_agent_predictions", "counter", ("class",), "Number of samples predicted as each class."),
    MetricDescription(
        "edge_agent_prediction_reference_ratio",
        "gauge",
        ("class",),
        "Fraction of test samples predicted as each class when the model was evaluated, from 0 to 1.",
    ),
    MetricDescription(
        "edge_agent_prediction_confidence_ratio",
        "histogram",
        (),
        "Probability of the predicted class, from 0 to 1. A value equal to a bound is counted in the next bucket.",
    ),
    MetricDescription(
        "edge_agent_feature_bin", "counter", ("feature", "bin"), "Number of samples by drift feature and bin."
    ),
    MetricDescription(
        "edge_agent_feature_reference_ratio",
        "gauge",
        ("feature", "bin"),
        "Fraction of the training samples by drift feature and bin, from 0 to 1.",
    ),
    MetricDescription("edge_agent_feature_reference_samples", "gauge", (), "Number of samples in the drift reference."),
    MetricDescription(
        "edge_agent_feedback",
        "counter",
        ("class", "result"),
        "Number of labelled predictions by true class and result.",
    ),
    MetricDescription("edge_agent_capture_samples", "gauge", (), "Number of captured samples on the disk."),
    MetricDescription("edge_agent_capture_bytes", "gauge", (), "Size in bytes of the captured samples on the disk."),
    MetricDescription(
        "edge_agent_capture_dropped",
        "counter",
        (),
        "Number of samples that were not captured because the disk was too slow or failed.",
    ),
    MetricDescription(
        "edge_agent_device_cpu_ratio",
        "gauge",
        (),
        "Average utilisation of all processors since the last scrape, from 0 to 1.",
    ),
    MetricDescription(
        "edge_agent_device_memory_available_bytes", "gauge", (), "Memory in bytes that is available without swapping."
    ),
    MetricDescription("edge_agent_device_memory_bytes", "gauge", (), "Total memory of the device in bytes."),
    MetricDescription(
        "edge_agent_device_disk_free_bytes", "gauge", (), "Free space in bytes on the disk with the releases."
    ),
    MetricDescription("edge_agent_device_disk_bytes", "gauge", (), "Size in bytes of the disk with the releases."),
    MetricDescription(
        "edge_agent_device_boot_time_seconds",
        "gauge",
        (),
        "Time of the device's last boot in seconds since 1970-01-01 UTC.",
    ),
    MetricDescription(
        "edge_agent_device_time_seconds",
        "gauge",
        (),
        "Current time of the device's clock in seconds since 1970-01-01 UTC.",
    ),
    MetricDescription(
        "edge_agent_device_temperature_celsius",
        "gauge",
        ("chip",),
        "Highest temperature in degrees Celsius that each sensor chip reports.",
    ),
)
