"""Export the agent's statistics to Prometheus, as metrics `edge_agent_*` in base units.

edge_agent.monitoring.metric_table describes every metric. The number of time series is limited, because label
values come from fixed sets: the release's classes, features and bins, the HTTP routes, and the reasons of errors.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from edge_agent.core.space import disk_space
from edge_agent.monitoring.metric_table import METRICS
from edge_agent.monitoring.release_statistics import LatencyHistogram, ReleaseStatistics
from edge_agent.monitoring.service_statistics import ServiceStatistics

REASONS = ("model", "output", "timeout")


_BY_NAME = {description.name: description for description in METRICS}


class MetricsExporter:
    """Export the statistics and the state of the device in Prometheus's format. Values are read at each scrape."""

    def __init__(
        self, statistics: ServiceStatistics, capture_usage: Callable[[], Mapping[str, int]] | None = None
    ) -> None:
        """Create the exporter. `capture_usage` is the method `Capture.usage`, or None if capturing is off."""
        self._statistics, self._capture_usage = statistics, capture_usage
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        psutil.cpu_percent(
            interval=None
        )  # psutil measures the time since the previous call; this first call starts the measurement

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics in the format that the `Accept` header requests, and the content type of this format."""
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # the header has a version that is not a number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. prometheus_client calls this method at each scrape."""
        yield from self._service()
        if self._statistics.current is not None:
            yield from _release(self._statistics.current)
            limit = self._statistics.current.loaded.model.batch or self._statistics.config.serve.batch
            yield _single("edge_agent_batch_samples_limit", limit)
        if self._capture_usage is not None:
            usage = self._capture_usage()
            yield _single("edge_agent_capture_samples", usage["samples"])
            yield _single("edge_agent_capture_bytes", usage["bytes"])
            yield _single("edge_agent_capture_dropped", usage["dropped"])
        yield from _device(self._statistics)

    def _service(self) -> Iterator[Metric]:
        statistics = self._statistics
        yield _single("edge_agent_trial", float(statistics.trial))
        yield _single("edge_agent_trial_starts", statistics.starts)
        requests = sorted(statistics.http.items())
        yield _labelled(
            "edge_agent_http_requests", {(path, method, str(code)): count for (path, method, code), count in requests}
        )


def _release(statistics: ReleaseStatistics) -> Iterator[Metric]:
    release, target = statistics.release, statistics.target
    runtime = statistics.loaded.io["runtime"]
    yield _info(
        "edge_agent_model", {"release": release, "target": target, "sha256": statistics.sha256, "runtime": runtime}
    )
    name, _, version = release.rpartition("@")
    yield _info("edge_agent_release", {"release": release, "name": name, "version": version})
    yield _single("edge_agent_restarts", statistics.restarts)
    yield _labelled("edge_agent_inferences", {(release, target): statistics.inferences})
    yield _labelled("edge_agent_inference_errors", {(reason,): statistics.errors.get(reason, 0) for reason in REASONS})
    yield _latency("edge_agent_inference_duration_seconds", statistics.latency)
    yield _latency("edge_agent_queue_duration_seconds", statistics.queue)
    per_class = zip(statistics.classes, statistics.per_class, strict=True)
    yield _labelled("edge_agent_predictions", {(name,): count for name, count in per_class})
    reference = statistics.prediction_reference
    yield _labelled("edge_agent_prediction_reference_ratio", {(name,): share for name, share in reference.items()})
    yield _confidence(statistics)
    yield from _features(statistics)
    yield _labelled(
        "edge_agent_feedback",
        {
            (name, result): statistics.feedback.get(name, {}).get(result, 0)
            for name in statistics.classes
            for result in ("correct", "wrong")
        },
    )


def _confidence(statistics: ReleaseStatistics) -> Metric:
    cumulative, buckets = 0, []
    for bound, count in zip([*map(repr, statistics.confidence_edges), "+Inf"], statistics.confidence, strict=True):
        cumulative += count
        buckets.append((bound, cumulative))
    return _histogram("edge_agent_prediction_confidence_ratio", buckets, statistics.confidence_sum)


def _features(statistics: ReleaseStatistics) -> Iterator[Metric]:
    statistics.flush()
    counts: dict[tuple[str, ...], float] = {}
    ratios: dict[tuple[str, ...], float] = {}
    rows = zip(statistics.features, statistics.feature_counts.tolist(), statistics.bins.sizes, strict=True)
    for feature, row, size in rows:
        for number, (count, ratio) in enumerate(zip(row[:size], feature["ratios"], strict=True)):
            counts[feature["name"], str(number)] = count
            ratios[feature["name"], str(number)] = ratio
    yield _labelled("edge_agent_feature_bin", counts)
    yield _labelled("edge_agent_feature_reference_ratio", ratios)
    yield _single("edge_agent_feature_reference_samples", statistics.reference_samples)


def _device(statistics: ServiceStatistics) -> Iterator[Metric]:
    """Yield the metrics of the device, such as free memory. Values that the device does not provide are omitted."""
    yield _single("edge_agent_device_cpu_ratio", float(psutil.cpu_percent(interval=None)) / 100)
    memory = psutil.virtual_memory()
    yield _single("edge_agent_device_memory_available_bytes", memory.available)
    yield _single("edge_agent_device_memory_bytes", memory.total)
    with contextlib.suppress(OSError):
        disk = disk_space(statistics.config.layout.state)
        yield _single("edge_agent_device_disk_free_bytes", disk.free_bytes)
        yield _single("edge_agent_device_disk_bytes", disk.total_bytes)
    yield _single("edge_agent_device_boot_time_seconds", psutil.boot_time())
    yield _single("edge_agent_device_time_seconds", time.time())
    sensors: Mapping[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    highest: dict[tuple[str, ...], float] = {
        (chip,): max(reading.current for reading in values) for chip, values in sensors.items() if values
    }
    if highest:
        yield _labelled("edge_agent_device_temperature_celsius", highest)


def _single(name: str, value: float) -> Metric:
    """Build a counter or gauge without labels."""
    return _labelled(name, {(): value})


def _labelled(name: str, values: Mapping[tuple[str, ...], float]) -> Metric:
    """Build a counter or gauge with one series for each item of `values`.

    Each key of `values` holds the label values of one series, in the order in which METRICS declares the labels.
    """
    described = _BY_NAME[name]
    kind = CounterMetricFamily if described.type == "counter" else GaugeMetricFamily
    family = kind(described.name, described.help, labels=described.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _info(name: str, values: dict[str, str]) -> Metric:
    described = _BY_NAME[name]
    family = InfoMetricFamily(described.name, described.help)
    family.add_metric((), values)
    return family


def _latency(name: str, histogram: LatencyHistogram) -> Metric:
    return _histogram(name, histogram.cumulative(), histogram.total_s)


def _histogram(name: str, buckets: list[tuple[str, int]], total: float) -> Metric:
    described = _BY_NAME[name]
    family = HistogramMetricFamily(described.name, described.help)
    family.add_metric((), buckets=buckets, sum_value=total)
    return family
