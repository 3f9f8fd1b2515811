"""The agent's statistics: report, Prometheus metrics, drift."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_agent.core.config import Config
from edge_agent.inference.engine import Engine
from edge_agent.monitoring.drift import LEAST_SHARE, Bins, bin_counts, features, null_quantile, psi
from edge_agent.monitoring.release_statistics import BUCKETS, LatencyHistogram
from edge_agent.monitoring.service_statistics import ServiceStatistics
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from scipy import stats

from tests.support.agent.counting import SHAPE, counted, exporter, samples
from tests.support.agent.http_server import serving
from tests.support.agent.serving import RELEASE, Backend, behaving, device, installed, run
from tests.support.requirements import need_program


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return device(tmp_path)


def values(statistics: ServiceStatistics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every exported sample by name and labels."""
    text = exporter(statistics).render()[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_models_memory_is_not_reported_as_growth(config: Config) -> None:
    statistics, loaded = ServiceStatistics(config), installed(config)
    model = np.ones(12_500_000)  # 100 MB, like a model loaded after the service started

    statistics.start_release(loaded)
    report = statistics.report()
    assert report["memory_bytes"] - report["memory_at_start_bytes"] < 20e6

    leak = np.ones_like(model)
    report = statistics.report()
    assert report["memory_bytes"] - report["memory_at_start_bytes"] > 80e6
    assert leak.nbytes == model.nbytes


def test_the_report_matches_the_predictions(config: Config) -> None:
    loaded, x = installed(config), samples(500)

    report = counted(config, loaded, x=x).report()

    y = loaded.model.predict(x)
    classes = np.bincount(y.argmax(axis=1), minlength=3)
    assert report["predictions"] == dict(zip(loaded.classes, classes.tolist(), strict=True))
    assert report["confidence_mean"] == pytest.approx(y.max(axis=1).mean(), rel=1e-5)
    assert (report["release"], report["model_sha256"]) == (RELEASE, loaded.sha256)
    assert (report["inferences"], report["errors"], report["error_share"]) == (500, 0, 0.0)
    assert 0 < report["latency_s"]["p50"] <= report["latency_s"]["p95"] <= report["latency_s"]["p99"] < 5
    assert loaded.reference is not None
    for column, feature in enumerate(loaded.reference["features"]):
        counts = bin_counts(features(x)[:, column], feature["edges"])
        p, q = np.maximum(counts / 500, LEAST_SHARE), np.maximum(feature["ratios"], LEAST_SHARE)
        drift = report["drift"][feature["name"]]
        assert drift == {"psi": pytest.approx(float(((p - q) * np.log(p / q)).sum())), "n": 500}
    json.dumps(report)


def test_metrics_agree_with_the_report(config: Config) -> None:
    loaded, x = installed(config), samples(300)
    statistics = counted(config, loaded, x=x)

    exported = values(statistics)

    which = (("release", RELEASE), ("target", "onnx-fp32"))
    assert exported["edge_agent_inferences_total", which] == 300
    info = (*which[:1], ("runtime", "onnxruntime"), ("sha256", loaded.sha256), *which[1:])
    assert exported["edge_agent_model_info", info] == 1
    y = loaded.model.predict(x)
    for i, name in enumerate(loaded.classes):
        assert exported["edge_agent_predictions_total", (("class", name),)] == (y.argmax(axis=1) == i).sum()
    for edge in (0.5, 0.75, 0.9):
        bucket = exported["edge_agent_prediction_confidence_ratio_bucket", (("le", str(edge)),)]
        assert bucket == (y.max(axis=1) < edge).sum()
    assert loaded.reference is not None
    for column, feature in enumerate(loaded.reference["features"]):
        expected = bin_counts(features(x)[:, column], feature["edges"])
        for number, (count, ratio) in enumerate(zip(expected, feature["ratios"], strict=True)):
            labels = (("bin", str(number)), ("feature", feature["name"]))
            assert exported["edge_agent_feature_bin_total", labels] == count
            assert exported["edge_agent_feature_reference_ratio", labels] == ratio
    requests = statistics.current.latency if statistics.current else LatencyHistogram()
    assert exported["edge_agent_inference_duration_seconds_count", ()] == sum(requests.counts)
    assert exported["edge_agent_device_memory_bytes", ()] > 0
    assert exported["process_resident_memory_bytes", ()] > 0


def test_the_number_of_series_does_not_grow(config: Config) -> None:
    """Labels are bounded, whatever clients send and however many releases are loaded."""
    with serving(config, installed(config)) as agent:
        agent.ask("POST", "/predict", {"input": np.zeros(SHAPE).tolist()})
        for path in ("/nothing", "/metrics"):
            agent.ask("GET", path)
        agent.ask("GET", "/metrics")
        before = len(values(agent.statistics))
        for number in range(30):
            agent.ask("GET", f"/nothing/{number}")
            agent.ask(f"METHOD{number}", "/nothing")
        assert len(values(agent.statistics)) <= before + 2
        following = installed(config, "pump@2.0.0", seed=2)
        agent.call(agent.engine.swap(following))
        assert len(values(agent.statistics)) <= before + 2
        assert ("edge_agent_inferences_total", (("release", RELEASE), ("target", "onnx-fp32"))) not in values(
            agent.statistics
        )


def test_promtool_accepts_the_metrics(config: Config) -> None:
    promtool = need_program("promtool", "prometheus")
    with serving(device(config.layout.state / "b", capture={"enabled": True}), installed(config)) as agent:
        agent.ask("POST", "/predict", {"input": np.zeros(SHAPE).tolist()})
        answer = agent.ask("GET", "/metrics")
        openmetrics = agent.ask("GET", "/metrics", Accept="application/openmetrics-text; version=1.0.0")

    check = subprocess.run([promtool, "check", "metrics"], input=answer.content, capture_output=True)

    assert (check.returncode, check.stdout + check.stderr) == (0, b"")
    assert answer.headers["content-type"].startswith("text/plain")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.content.endswith(b"# EOF\n")


def test_late_results_count_for_the_release_that_computed_them(config: Config) -> None:
    first = installed(config)
    slow = Backend(lambda x: x[:, 0, :3], held=True)
    statistics = ServiceStatistics(config)

    async def main() -> None:
        engine = Engine(config.serve)
        statistics.attach(engine)
        await engine.swap(behaving(first, slow))
        late = asyncio.ensure_future(engine.predict(samples(5)))
        await asyncio.to_thread(slow.entered.wait, 30)
        swapping = asyncio.ensure_future(engine.swap(first))
        await asyncio.sleep(0)
        await engine.predict(samples(2))
        slow.go.set()
        await swapping
        assert (await late).release == "other@1.0.0"
        await engine.close()

    run(main)
    assert (statistics.report()["release"], statistics.report()["inferences"]) == (RELEASE, 2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(3e-6, 20), min_size=1, max_size=300))
def test_durations(seconds: list[float]) -> None:
    durations = LatencyHistogram()
    for value in seconds:
        durations.add(value)

    for bound, count in durations.cumulative():
        assert count == sum(value <= float(bound) for value in seconds)
    for share in (0.5, 0.95, 0.99):
        exact = float(np.quantile(seconds, share, method="inverted_cdf"))
        estimate = durations.quantile(share)
        assert estimate is not None
        if exact < BUCKETS[-1]:
            assert exact / 1.13 <= estimate <= exact * 1.13


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_bins_of_many_features_are_those_of_each(data: Any) -> None:
    number = st.floats(-5, 5, allow_nan=False).map(lambda value: round(value, 1))
    edges = data.draw(st.lists(st.lists(number, max_size=4, unique=True).map(sorted), min_size=1, max_size=3))
    row = st.lists(number, min_size=len(edges), max_size=len(edges))
    rows = np.array(data.draw(st.lists(row, min_size=1, max_size=8)))

    bins = Bins(edges)

    counts = bins.counts(bins.locate(rows))
    for column, own in enumerate(edges):
        assert counts[column, : len(own) + 1].tolist() == bin_counts(rows[:, column], own).tolist()


def test_psi_and_its_null_quantile() -> None:
    assert psi([0.5, 0.5], [10, 10]) == 0.0
    assert psi([0.5, 0.5], [0, 0]) == 0.0
    assert psi([0.5, 0.5], [3, 1]) == pytest.approx(0.25 * np.log(3))
    assert psi([1.0, 0.0], [0, 7]) == pytest.approx(2 * (1 - LEAST_SHARE) * np.log(1 / LEAST_SHARE))
    for size in (2, 4, 10, 20):
        exact = stats.chi2.ppf(0.99, size - 1) * (1 / 200 + 1 / 1000)
        assert null_quantile(size, 200, 1000) == pytest.approx(exact, rel=0.04)


def test_counting_is_cheap(config: Config) -> None:
    """The cost of a request besides its prediction: counting, remembering for feedback, binning features."""
    loaded, x = installed(config), samples(1)
    y = loaded.model.predict(x)
    statistics = ServiceStatistics(config)
    statistics.start_release(loaded)
    best = min(_per_call(lambda: statistics._answered(x, y, 1e-4, loaded)) for _ in range(5))

    assert best < 50e-6


def _per_call(call: Any, times: int = 2000) -> float:
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times
