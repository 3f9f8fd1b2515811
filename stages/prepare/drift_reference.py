"""The drift reference: how the features of training samples are distributed over fixed bins.

Drift is later measured as the population stability index between these ratios and a device's,
PSI = sum((p - q) * ln(p / q)); bins of equal share give each bin the same weight in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from edge_agent.monitoring.drift import STATISTICS, bin_counts, features

from stages.core.dataset import SampleSpec, Split

SAMPLES_PER_CHUNK = 256


def build_reference(train: Split, spec: SampleSpec, bins: int, most: int) -> dict[str, Any]:
    """Edges and ratios per feature from at most `most` training samples, evenly spaced; ratios of their labels.

    A feature with few distinct values gets fewer bins than `bins`: equal edges are one edge.
    """
    chosen = np.linspace(0, len(train) - 1, min(len(train), most)).round().astype(np.int64)
    values = np.concatenate(
        [features(train.samples(chosen[i : i + SAMPLES_PER_CHUNK])) for i in range(0, len(chosen), SAMPLES_PER_CHUNK)],
        dtype=np.float64,
    )
    labels = np.bincount(train.y[chosen], minlength=len(spec.classes)) / len(chosen)
    described = []
    for column in range(values.shape[1]):
        channel, statistic = divmod(column, len(STATISTICS))
        edges = _edges(values[:, column], bins)
        name = f"{spec.channels[channel].name}.{STATISTICS[statistic]}"
        described.append(
            {
                "name": name,
                "channel": channel,
                "statistic": STATISTICS[statistic],
                "edges": edges,
                "ratios": (bin_counts(values[:, column], edges) / len(chosen)).tolist(),
            }
        )
    return {
        "schema_version": 1,
        "samples": len(chosen),
        "features": described,
        "labels": {name: float(share) for name, share in zip(spec.classes, labels, strict=True)},
    }


def _edges(values: np.ndarray, bins: int) -> list[float]:
    """Inner edges at equal shares, to 7 significant digits, ascending and distinct."""
    quantiles = np.quantile(values, np.arange(1, bins) / bins)
    return sorted({float(f"{edge:.7g}") for edge in quantiles})
