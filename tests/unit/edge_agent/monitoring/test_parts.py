"""A part of the metrics or of the report that fails is left out and named, and the other parts remain."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from edge_agent.core.config import Config
from edge_agent.monitoring.prometheus import MetricsExporter
from edge_agent.monitoring.release_statistics import PENDING
from edge_agent.monitoring.service_statistics import ServiceStatistics
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from tests.support.agent.counting import counted, exporter, samples
from tests.support.agent.serving import device, installed

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return device(tmp_path)


@pytest.fixture
def statistics(config: Config) -> ServiceStatistics:
    return counted(config, installed(config), x=samples(30))


def exported(metrics: MetricsExporter) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the names of the metrics, and the output and name of each part that failed. Both formats are parsed."""
    families = list(parser.text_string_to_metric_families(metrics.render()[0].decode()))
    same = list(openmetrics_parser.text_string_to_metric_families(metrics.render(OPENMETRICS)[0].decode()))
    names = {family.name for family in families}
    assert {family.name for family in same} <= {name.removesuffix("_info") for name in names} | names
    failed = {
        (sample.labels["output"], sample.labels["part"])
        for family in families
        if family.name == "edge_agent_part_failed"
        for sample in family.samples
        if sample.value
    }
    return names, failed


def test_no_part_fails_normally(statistics: ServiceStatistics) -> None:
    assert statistics.report()["failed_parts"] == []
    names, failed = exported(exporter(statistics))
    assert (failed, {"edge_agent_healthy", "edge_agent_inferences", "edge_agent_feature_bin"} - names) == (set(), set())


def test_drift_that_cannot_be_counted_silences_neither_the_metrics_nor_the_report(
    statistics: ServiceStatistics, caplog: pytest.LogCaptureFixture
) -> None:
    current = statistics.current
    assert current is not None
    current.features[0] = {"name": "vibration.mean"}  # without the ratios that drift is computed from

    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            report = statistics.report()
        names, failed = exported(exporter(statistics))

    assert failed == {("metrics", "drift"), ("report", "drift")}
    assert "edge_agent_inferences" in names
    assert "edge_agent_feature_bin" not in names
    assert (report["inferences"], report["failed_parts"], "drift" in report) == (30, ["drift"], False)
    assert sum("of the report failed" in record.getMessage() for record in caplog.records) == 1


def test_samples_that_cannot_be_counted_do_not_fill_the_memory(statistics: ServiceStatistics) -> None:
    current = statistics.current
    assert current is not None
    one_channel_instead_of_two, probabilities = np.zeros((1, 1, 16), np.float32), np.ones((1, 3), np.float32) / 3

    for _ in range(3 * PENDING):
        with contextlib.suppress(IndexError, ValueError):
            current.add(one_channel_instead_of_two, probabilities, 0.1)

    assert len(current._pending) < PENDING


def test_a_value_that_cannot_be_written_costs_only_its_part(statistics: ServiceStatistics) -> None:
    current = statistics.current
    assert current is not None
    current.prediction_reference = {"fine": "a third"}  # type: ignore[dict-item]  # fails when it is encoded
    current.confidence_sum = float("nan")  # no JSON

    report = statistics.report()
    names, failed = exported(exporter(statistics))

    assert failed == {("metrics", "predictions"), ("report", "predictions")}
    assert (report["failed_parts"], report["inferences"]) == (["predictions"], 30)
    assert "edge_agent_feature_bin" in names
    json.dumps(report, allow_nan=False)
