"""Compute the drift reference: the distribution of each feature of the training samples over fixed bins.

A device measures drift as the population stability index (PSI) between the bin ratios p of this reference and the bin
ratios q of the device's own inputs: PSI = sum((p - q) * ln(p / q)). Bins that hold equal numbers of samples have equal
weight in the PSI.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from edge_agent.monitoring.drift import STATISTICS, bin_counts, features

from stages.core.dataset import SampleSpec, Split

SAMPLES_PER_CHUNK = 256


def build_reference(train: Split, spec: SampleSpec, bins: int, limit: int) -> dict[str, Any]:
    """Compute the bin edges and bin ratios of each feature, and the fraction of samples with each label.

    Args:
        train: The training split.
        spec: Description of a sample.
        bins: Number of bins per feature. A feature with few distinct values gets fewer bins, because equal edges are
            merged.
        limit: Maximum number of training samples to use; the used samples are evenly spaced over the split.

    Returns:
        The contents of data/drift_reference.json.
    """
    chosen = np.linspace(0, len(train) - 1, min(len(train), limit)).round().astype(np.int64)
    values = np.concatenate(
        [features(train.samples(chosen[i : i + SAMPLES_PER_CHUNK])) for i in range(0, len(chosen), SAMPLES_PER_CHUNK)],
        dtype=np.float64,
    )
    labels = np.bincount(train.y[chosen], minlength=len(spec.classes)) / len(chosen)
    descriptions = []
    for column in range(values.shape[1]):
        channel, statistic = divmod(column, len(STATISTICS))
        edges = _edges(values[:, column], bins)
        name = f"{spec.channels[channel].name}.{STATISTICS[statistic]}"
        descriptions.append(
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
        "features": descriptions,
        "labels": {name: float(share) for name, share in zip(spec.classes, labels, strict=True)},
    }


def _edges(values: np.ndarray, bins: int) -> list[float]:
    """Return the inner edges of bins that hold equal numbers of values.

    The edges are distinct, in ascending order, and rounded to 7 significant digits.
    """
    quantiles = np.quantile(values, np.arange(1, bins) / bins)
    return sorted({float(f"{edge:.7g}") for edge in quantiles})
