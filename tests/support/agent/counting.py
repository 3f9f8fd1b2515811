"""Counts of what an engine in this process has answered."""

from __future__ import annotations

import numpy as np
from edge_agent.core.config import Config
from edge_agent.inference.engine import Engine, Loaded
from edge_agent.monitoring.counts import Counts

from tests.support.agent.serving import run

SHAPE = (2, 16)


def samples(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def counted(config: Config, *releases: Loaded, x: np.ndarray) -> Counts:
    """Counts after each release has answered every sample of `x`, in requests of 1, 2, 3, ... samples."""
    counts = Counts(config)

    async def main() -> None:
        engine = Engine(config.serve)
        counts.attach(engine)
        for loaded in releases:
            await engine.swap(loaded)
            row, size = 0, 1
            while row < len(x):
                counts.answered(await engine.predict(x[row : row + size]))
                row, size = row + size, size % 7 + 1
        await engine.close()

    run(main)
    return counts
