"""The agent's counts in hard cases: restarts, corrupted files, failed batches, very short and very long times."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from edge_agent.core.config import Config
from edge_agent.inference.engine import Engine
from edge_agent.inference.model import OutputError
from edge_agent.monitoring.release_statistics import LatencyHistogram
from edge_agent.monitoring.service_statistics import ServiceStatistics
from prometheus_client.parser import text_string_to_metric_families

from tests.support.agent.counting import counted, exporter, samples
from tests.support.agent.serving import Backend, behaving, device, installed, run


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return device(tmp_path)


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("inferences", "Infinity"),
        ("inferences", "1e30"),
        ("inferences", "-1"),
        ("confidence_sum", "NaN"),
        ("confidence_sum", "1e400"),
        ("restarts", "9" * 5000),
        ("feature_counts", "[[1e30]]"),
        ("per_class", "[1, 2, -3]"),
        ("feedback", '{"normal": {"correct": NaN, "wrong": 0}}'),
        ("errors", "[" * 100_000 + "]" * 100_000),
    ],
)
def test_an_impossible_count_is_discarded(config: Config, field: str, number: str) -> None:
    loaded = installed(config)
    statistics = counted(config, loaded, x=samples(50))
    statistics.save(statistics.snapshot())
    value = {**json.loads(config.layout.counts.read_bytes()), field: "HERE"}
    config.layout.counts.write_text(json.dumps(value).replace('"HERE"', number))

    report = counted(config, loaded, x=samples(3)).report()

    assert (report["inferences"], report["restarts"]) == (3, 0)
    json.dumps(report, allow_nan=False)


def test_a_failing_swap_observer_does_not_stop_a_swap(config: Config) -> None:
    async def main() -> None:
        engine = Engine(config.serve)
        engine.swap_observers.append(lambda loaded: 1 // 0)
        await engine.swap(installed(config))
        assert len((await engine.predict(samples(1))).probabilities) == 1
        await engine.close()

    run(main)


def test_errors_and_inferences_are_both_samples(config: Config) -> None:
    broken = behaving(
        installed(config), Backend(lambda x: np.full((len(x), 3), np.nan if len(x) > 1 else 0.0, np.float32))
    )
    statistics = ServiceStatistics(config)

    async def main() -> None:
        engine = Engine(config.serve)
        statistics.attach(engine)
        await engine.swap(broken)
        await engine.predict(samples(1))
        with pytest.raises(OutputError):
            await engine.predict(samples(3))
        await engine.close()

    run(main)
    assert (statistics.report()["inferences"], statistics.report()["errors"], statistics.report()["error_share"]) == (
        1,
        3,
        0.75,
    )


@pytest.mark.parametrize("seconds", [3e-6, 8e-6, 2e-5, 4e-5, 7.0, 9.5])
def test_quantiles_are_accurate_to_a_few_percent(seconds: float) -> None:
    durations = LatencyHistogram()
    for _ in range(100):
        durations.add(seconds)

    assert durations.quantile(0.5) == pytest.approx(seconds, rel=0.13)


def test_starts_decrease_after_a_trial_so_they_are_a_gauge(config: Config) -> None:
    types = {
        family.name: family.type
        for family in text_string_to_metric_families(exporter(ServiceStatistics(config)).render()[0].decode())
    }

    assert types["edge_agent_trial_starts"] == "gauge"
    assert "edge_agent_starts" not in types


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=abc", "text/plain;version=1.x", "\u00e9"])
def test_an_invalid_version_gets_plain_text(config: Config, accept: str) -> None:
    content, kind = exporter(ServiceStatistics(config)).render(accept)

    assert kind.startswith("text/plain")
    assert content


def test_counts_survive_a_restart_but_not_another_release(config: Config) -> None:
    loaded = installed(config)
    statistics = counted(config, loaded, x=samples(50))
    statistics.save(statistics.snapshot())
    assert statistics.snapshot() is None

    again = counted(config, loaded, x=samples(7))
    other = counted(config, installed(config, "pump@2.0.0", seed=2), x=samples(7))

    before, after = statistics.report(), again.report()
    assert (after["inferences"], after["restarts"], after["since"]) == (57, 1, before["since"])
    assert sum(after["predictions"].values()) == after["drift"]["current.std"]["n"] == 57
    assert (other.report()["inferences"], other.report()["restarts"]) == (7, 0)


def test_counts_start_from_zero_after_a_rollback(config: Config) -> None:
    loaded, other = installed(config), installed(config, "pump@2.0.0", seed=2)
    statistics = counted(config, loaded, other, loaded, x=samples(9))

    assert statistics.report()["inferences"] == 9


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"schema_version": 1}', b"\xff", b"null"])
def test_an_invalid_file_of_counts_is_discarded(config: Config, content: bytes) -> None:
    loaded = installed(config)
    config.layout.counts.write_bytes(content)

    assert counted(config, loaded, x=samples(3)).report()["inferences"] == 3


def test_counts_are_kept_when_the_service_ends(config: Config) -> None:
    statistics = counted(config, installed(config), x=samples(3))

    async def main() -> None:
        keeping = asyncio.ensure_future(statistics.save_periodically())
        await asyncio.sleep(0)
        keeping.cancel()
        await keeping

    run(main)
    assert json.loads(config.layout.counts.read_bytes())["inferences"] == 3


def test_a_process_killed_just_after_a_switch_has_restarted_since_the_switch(config: Config) -> None:
    loaded, other = installed(config), installed(config, "pump@2.0.0", seed=2)
    statistics = counted(config, loaded, x=samples(3))

    def kept(release: str) -> bool:
        file = config.layout.counts
        return file.exists() and bool(json.loads(file.read_bytes())["release"] == release)

    async def main() -> None:
        keeping = asyncio.ensure_future(statistics.save_periodically(every_s=3600.0))
        for release, begins in ((loaded.release, None), (other.release, other)):
            if begins is not None:
                await asyncio.to_thread(statistics.start_release, begins)
            async with asyncio.timeout(20):
                while not kept(release):
                    await asyncio.sleep(0.01)
        config.layout.counts.rename(config.layout.counts.with_suffix(".killed"))
        keeping.cancel()
        await keeping

    run(main)
    config.layout.counts.with_suffix(".killed").rename(config.layout.counts)
    assert counted(config, other, x=samples(1)).report()["restarts"] == 1
