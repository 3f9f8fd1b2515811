"""Export the agent's statistics to Prometheus, as metrics `edge_agent_*` in base units.

edge_agent.monitoring.metric_table describes every metric. The number of time series is limited, because label
values come from fixed sets: the release's classes, features and bins, the HTTP routes, and the reasons of errors. The
metrics are computed in parts: if one part fails, the other parts are exported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import psutil
from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from edge_agent.core.space import disk_space
from edge_agent.monitoring.health import Condition
from edge_agent.monitoring.metric_table import METRICS
from edge_agent.monitoring.parts import Parts
from edge_agent.monitoring.release_statistics import LatencyHistogram, ReleaseStatistics
from edge_agent.monitoring.service_statistics import ServiceStatistics

REASONS = ("model", "output", "timeout")
END = b"# EOF\n"  # the last line in the OpenMetrics format

_BY_NAME = {description.name: description for description in METRICS}


class MetricsExporter:
    """Export the statistics and the state of the device in Prometheus's format. Values are read at each scrape."""

    def __init__(
        self,
        statistics: ServiceStatistics,
        condition: Callable[[], Condition],
        capture_usage: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        """Create the exporter.

        Args:
            statistics: The statistics of the service.
            condition: A function that returns whether the current release is loaded and healthy.
            capture_usage: The method `Capture.usage`, or None if capturing is off.
        """
        self.condition = condition
        self._statistics, self._capture_usage = statistics, capture_usage
        self._parts = Parts("metrics")
        self._collectors: dict[str, Callable[[], Iterable[Metric]]] = {
            "health": self._health,
            "trial": self._trial,
            "requests": self._requests,
            "batch": partial(self._of_release, self._batch),
            **{name: partial(self._of_release, collect) for name, collect in _RELEASE_PARTS.items()},
            "capture": self._capture,
            **_DEVICE_PARTS,
            "disk": self._disk,
            "process": ProcessCollector(registry=None).collect,
        }
        # psutil measures the time since the previous call; this first call starts the measurement
        self._parts.compute("processors", lambda: psutil.cpu_percent(interval=None))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics in the format that the `Accept` header requests, and the content type of this format.

        A part that fails is left out, and `edge_agent_part_failed` names it.
        """
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # the header has a version that is not a number
            encode, content_type = choose_encoder("")
        # Each part is also encoded separately, because an invalid value is only found when it is encoded.
        blocks = [
            self._parts.compute(name, partial(encode, _Part(collect))) for name, collect in self._collectors.items()
        ]
        blocks.append(encode(_Part(self._failed_parts)))
        end = END if content_type.startswith("application/openmetrics-text") else b""
        return b"".join(block.removesuffix(END) for block in blocks if block is not None) + end, content_type

    def _health(self) -> Iterator[Metric]:
        condition = self.condition()
        yield _labelled("edge_agent_healthy", {(condition.reason,): float(condition.healthy)})

    def _trial(self) -> Iterator[Metric]:
        yield _single("edge_agent_trial", float(self._statistics.trial))
        yield _single("edge_agent_trial_starts", self._statistics.starts)

    def _requests(self) -> Iterator[Metric]:
        requests = sorted(self._statistics.http.items())
        yield _labelled(
            "edge_agent_http_requests", {(path, method, str(code)): count for (path, method, code), count in requests}
        )

    def _of_release(self, collect: Callable[[ReleaseStatistics], Iterable[Metric]]) -> Iterable[Metric]:
        return collect(self._statistics.current) if self._statistics.current is not None else ()

    def _batch(self, statistics: ReleaseStatistics) -> Iterator[Metric]:
        limit = statistics.loaded.model.batch or self._statistics.config.serve.batch
        yield _single("edge_agent_batch_samples_limit", limit)

    def _capture(self) -> Iterator[Metric]:
        if self._capture_usage is not None:
            usage = self._capture_usage()
            yield _single("edge_agent_capture_samples", usage["samples"])
            yield _single("edge_agent_capture_bytes", usage["bytes"])
            yield _single("edge_agent_capture_dropped", usage["dropped"])

    def _disk(self) -> Iterator[Metric]:
        try:
            disk = disk_space(self._statistics.config.layout.state)
        except FileNotFoundError:
            return  # the folder is created with the first release
        yield _single("edge_agent_device_disk_free_bytes", disk.free_bytes)
        yield _single("edge_agent_device_disk_bytes", disk.total_bytes)

    def _failed_parts(self) -> Iterator[Metric]:
        yield _labelled(
            "edge_agent_part_failed",
            {
                (parts.output, name): float(failed)
                for parts in (self._parts, self._statistics.report_parts)
                for name, failed in parts.failed.items()
            },
        )


class _Part(Collector):
    """One part of the metrics, in the form that the encoders of prometheus_client need."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def _release(statistics: ReleaseStatistics) -> Iterator[Metric]:
    release, target = statistics.release, statistics.target
    runtime = statistics.loaded.io["runtime"]
    yield _info(
        "edge_agent_model", {"release": release, "target": target, "sha256": statistics.sha256, "runtime": runtime}
    )
    name, _, version = release.rpartition("@")
    yield _info("edge_agent_release", {"release": release, "name": name, "version": version})
    yield _single("edge_agent_restarts", statistics.restarts)


def _inferences(statistics: ReleaseStatistics) -> Iterator[Metric]:
    yield _labelled("edge_agent_inferences", {(statistics.release, statistics.target): statistics.inferences})
    yield _labelled("edge_agent_inference_errors", {(reason,): statistics.errors.get(reason, 0) for reason in REASONS})
    yield _latency("edge_agent_inference_duration_seconds", statistics.latency)
    yield _latency("edge_agent_queue_duration_seconds", statistics.queue)


def _predictions(statistics: ReleaseStatistics) -> Iterator[Metric]:
    per_class = zip(statistics.classes, statistics.per_class, strict=True)
    yield _labelled("edge_agent_predictions", {(name,): count for name, count in per_class})
    reference = statistics.prediction_reference
    yield _labelled("edge_agent_prediction_reference_ratio", {(name,): share for name, share in reference.items()})
    yield _confidence(statistics)


def _feedback(statistics: ReleaseStatistics) -> Iterator[Metric]:
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


def _processors() -> Iterator[Metric]:
    yield _single("edge_agent_device_cpu_ratio", float(psutil.cpu_percent(interval=None)) / 100)


def _memory() -> Iterator[Metric]:
    memory = psutil.virtual_memory()
    yield _single("edge_agent_device_memory_available_bytes", memory.available)
    yield _single("edge_agent_device_memory_bytes", memory.total)


def _clock() -> Iterator[Metric]:
    yield _single("edge_agent_device_boot_time_seconds", psutil.boot_time())
    yield _single("edge_agent_device_time_seconds", time.time())


def _temperatures() -> Iterator[Metric]:
    """Yield the temperature of each sensor chip. A device without sensors has no such metric."""
    sensors: Mapping[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    highest: dict[tuple[str, ...], float] = {
        (chip,): max(reading.current for reading in values) for chip, values in sensors.items() if values
    }
    if highest:
        yield _labelled("edge_agent_device_temperature_celsius", highest)


_RELEASE_PARTS: dict[str, Callable[[ReleaseStatistics], Iterable[Metric]]] = {
    "release": _release,
    "inferences": _inferences,
    "predictions": _predictions,
    "drift": _features,
    "feedback": _feedback,
}
_DEVICE_PARTS: dict[str, Callable[[], Iterable[Metric]]] = {
    "processors": _processors,
    "memory": _memory,
    "clock": _clock,
    "temperatures": _temperatures,
}


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
