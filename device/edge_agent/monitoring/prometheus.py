"""The counts as Prometheus reads them: base units, names `edge_agent_*`, a bounded number of series.

Label values are those of the release's own classes, features and bins, of the routes, and of a few fixed reasons.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from edge_agent.monitoring.release_statistics import LatencyHistogram, ReleaseStatistics
from edge_agent.monitoring.service_statistics import ServiceStatistics

PREFIX = "edge_agent_"
REASONS = ("model", "output", "timeout")


class MetricsExporter:
    """Renders `counts`; the collector is asked at each scrape, and nothing is kept for it.

    `captured`: what the ring of captured samples holds, {"samples", "bytes", "dropped"}, where there is one.
    """

    def __init__(self, statistics: ServiceStatistics, captured: Callable[[], Mapping[str, int]] | None = None) -> None:
        self._statistics, self._captured = statistics, captured
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        psutil.cpu_percent(interval=None)  # the first call has nothing to compare with

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition in the format that `accept` asks for, and its content type."""
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # a version that is no number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        yield from self._service()
        if self._statistics.current is not None:
            yield from _release(self._statistics.current)
        if self._captured is not None:
            held = self._captured()
            yield _gauge("capture_samples", "Captured samples on disk.", held["samples"])
            yield _gauge("capture_bytes", "Bytes of the captured samples on disk.", held["bytes"])
            yield _counter("capture_dropped", "Samples not captured: the disk was slow or refused.", held["dropped"])
        yield from _device(self._statistics)

    def _service(self) -> Iterator[Metric]:
        statistics = self._statistics
        yield _gauge("trial", "1 while the current release is on trial.", float(statistics.trial))
        yield _gauge(
            "trial_starts", "Starts of the service with the release that is on trial, else 0.", statistics.starts
        )
        requests = CounterMetricFamily(
            f"{PREFIX}http_requests", "HTTP requests answered.", labels=("path", "method", "code")
        )
        for (path, method, code), count in sorted(statistics.http.items()):
            requests.add_metric((path, method, str(code)), count)
        yield requests


def _release(tally: ReleaseStatistics) -> Iterator[Metric]:
    runtime = tally.loaded.io["runtime"]
    model = InfoMetricFamily(f"{PREFIX}model", "The model that is loaded, by the digest of its bytes.")
    model.add_metric((), {"release": tally.release, "target": tally.target, "sha256": tally.sha256, "runtime": runtime})
    yield model
    release = InfoMetricFamily(f"{PREFIX}release", "The release that answers.")
    name, _, version = tally.release.rpartition("@")
    release.add_metric((), {"release": tally.release, "name": name, "version": version})
    yield release
    yield _counter("restarts", "Starts of the service since the switch, but the first.", tally.restarts)
    which = (tally.release, tally.target)
    inferences = CounterMetricFamily(f"{PREFIX}inferences", "Samples answered.", labels=("release", "target"))
    inferences.add_metric(which, tally.inferences)
    yield inferences
    yield _counters(
        "inference_errors", "Samples that the model failed.", "reason", {r: tally.errors.get(r, 0) for r in REASONS}
    )
    yield _histogram("inference_duration_seconds", "Time of the model's run for a request.", tally.latency)
    yield _histogram("queue_duration_seconds", "Time that a request waited for the model.", tally.queue)
    yield _counters("predictions", "Predictions of each class.", "class", _by_class(tally, tally.per_class))
    yield _gauges(
        "prediction_reference_ratio", "Share of each class at evaluation.", "class", tally.prediction_reference
    )
    sums, buckets = 0, []
    for edge, count in zip([*map(repr, tally.confidence_edges), "+Inf"], tally.confidence, strict=True):
        sums += count
        buckets.append((edge, sums))
    confidence = HistogramMetricFamily(
        f"{PREFIX}prediction_confidence_ratio", "Probability of the predicted class; a bucket is below its edge."
    )
    confidence.add_metric((), buckets=buckets, sum_value=tally.confidence_sum)
    yield confidence
    yield from _features(tally)
    feedback = CounterMetricFamily(
        f"{PREFIX}feedback", "Predictions whose true class came, by that class.", labels=("class", "result")
    )
    for name in tally.classes:
        for result in ("correct", "wrong"):
            feedback.add_metric((name, result), tally.feedback.get(name, {}).get(result, 0))
    yield feedback


def _features(tally: ReleaseStatistics) -> Iterator[Metric]:
    tally.flush()
    counted = CounterMetricFamily(
        f"{PREFIX}feature_bin", "Samples by the reference's bin of each feature.", labels=("feature", "bin")
    )
    ratios = GaugeMetricFamily(
        f"{PREFIX}feature_reference_ratio", "Share of each bin in training.", labels=("feature", "bin")
    )
    for feature, own, size in zip(tally.features, tally.feature_counts.tolist(), tally.bins.sizes, strict=True):
        for number, (count, ratio) in enumerate(zip(own[:size], feature["ratios"], strict=True)):
            counted.add_metric((feature["name"], str(number)), count)
            ratios.add_metric((feature["name"], str(number)), ratio)
    yield counted
    yield ratios
    yield _gauge("feature_reference_samples", "Samples behind the reference.", tally.reference_samples)


def _device(statistics: ServiceStatistics) -> Iterator[Metric]:
    """The device, read now. What it does not tell is left out."""
    yield _gauge("device_cpu_ratio", "Share of all processors in use since the last scrape.", _cpu())
    memory = psutil.virtual_memory()
    yield _gauge("device_memory_available_bytes", "Memory that can be had without swapping.", memory.available)
    yield _gauge("device_memory_bytes", "Memory of the device.", memory.total)
    with contextlib.suppress(OSError):
        disk = disk_space(statistics.config.layout.state)
        yield _gauge("device_disk_free_bytes", "Free space where releases are kept.", disk.free_bytes)
        yield _gauge("device_disk_bytes", "Size of the disk where releases are kept.", disk.total_bytes)
    yield _gauge("device_boot_time_seconds", "When the device was started, Unix time.", psutil.boot_time())
    yield _gauge("device_time_seconds", "The device's clock, Unix time.", time.time())
    sensors: Mapping[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    hottest = {chip: max(reading.current for reading in own) for chip, own in sensors.items() if own}
    if hottest:
        yield _gauges("device_temperature_celsius", "The hottest reading of each sensor chip.", "chip", hottest)


def _cpu() -> float:
    return float(psutil.cpu_percent(interval=None)) / 100


def _by_class(tally: ReleaseStatistics, values: Iterable[float]) -> dict[str, float]:
    return dict(zip(tally.classes, values, strict=True))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _labelled(CounterMetricFamily(PREFIX + name, text, labels=(label,)), values)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _labelled(GaugeMetricFamily(PREFIX + name, text, labels=(label,)), values)


def _labelled(family: Any, values: Mapping[str, float]) -> Metric:
    for value, number in values.items():
        family.add_metric((value,), number)
    metric: Metric = family
    return metric


def _histogram(name: str, text: str, durations: LatencyHistogram) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text)
    family.add_metric((), buckets=durations.cumulative(), sum_value=durations.total_s)
    return family
