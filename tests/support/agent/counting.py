"""Statistics of the requests that an engine in this process has answered."""

from __future__ import annotations

import numpy as np
from edge_agent.core.config import Config
from edge_agent.inference.engine import Engine, LoadedRelease
from edge_agent.monitoring.health import Condition
from edge_agent.monitoring.prometheus import MetricsExporter
from edge_agent.monitoring.service_statistics import ServiceStatistics

from tests.support.agent.serving import run

SHAPE = (2, 16)


def samples(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def counted(config: Config, *releases: LoadedRelease, x: np.ndarray) -> ServiceStatistics:
    """ServiceStatistics after each release has answered every sample of `x`, in requests of 1, 2, 3, ... samples."""
    statistics = ServiceStatistics(config)

    async def main() -> None:
        engine = Engine(config.serve)
        statistics.attach(engine)
        for loaded in releases:
            await engine.swap(loaded)
            row, size = 0, 1
            while row < len(x):
                statistics.remember(await engine.predict(x[row : row + size]))
                row, size = row + size, size % 7 + 1
        await engine.close()

    run(main)
    return statistics


def exporter(statistics: ServiceStatistics) -> MetricsExporter:
    """Return an exporter of these statistics, for a service without capture whose release is healthy."""
    return MetricsExporter(statistics, lambda: Condition("healthy", "healthy"))
