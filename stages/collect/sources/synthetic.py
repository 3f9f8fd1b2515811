"""Generate sensor data from a seed, with optional faults and drift."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pyarrow as pa

from stages.collect.sources.base import Context, FetchResult, Origin
from stages.params.collect import Synthetic

FAULT_ROWS = 20  # duration of a fault, in rows


async def fetch(source: Synthetic, context: Context) -> FetchResult:
    """Generate the rows of all simulated machines, for the period that ends at the time of the snapshot.

    The same seed and parameters always give the same rows. Raises SourceError if the parameters contradict each other.
    """
    if context.data.kind != "series":
        raise context.error(
            f"`type: synthetic` generates series, but data.kind is {context.data.kind}",
            "data.kind: series",
            "change data.kind or the type of the source",
        )
    if source.fault_share > 0 and not source.faults:
        raise context.error(
            "fault_share is above 0, but `faults:` is empty",
            "at least one kind of fault",
            "add a kind of fault, or set fault_share: 0",
        )
    description = f"{source.model_dump_json()} channels={list(context.data.channels)}"
    digest = hashlib.sha256(description.encode()).hexdigest()
    return FetchResult([Origin(f"synthetic:seed={source.seed}", digest, 0)], _groups(source, context))


def _groups(source: Synthetic, context: Context) -> Iterator[pa.Table]:
    data = context.data
    normal, faulty = list(data.classes)[:2]
    start = context.snapshot.replace(tzinfo=None) - timedelta(seconds=source.rows / source.rate_hz)
    seconds = np.arange(source.rows) / source.rate_hz
    times = np.datetime64(start, "us") + (seconds * 1e6).astype("timedelta64[us]")
    for group in range(source.groups):
        random = np.random.default_rng([source.seed, group])
        values = np.stack([_signal(seconds, source, random) for _ in data.channels], axis=1)
        fault = inject_faults(values, source, random)
        yield pa.table(
            {
                data.group: [f"synthetic-{group:03d}"] * source.rows,
                str(data.time): pa.array(times),
                **dict(zip(data.channels, values.T.copy(), strict=True)),
                data.label: np.where(fault, faulty, normal),
            }
        )


def _signal(seconds: np.ndarray, source: Synthetic, random: np.random.Generator) -> np.ndarray:
    period, phase = random.uniform(10, 120), random.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi * seconds / period + phase)
    noise = random.normal(0, source.noise, len(seconds)) if source.noise else 0.0
    drift = source.drift_per_hour * seconds / 3600
    signal: np.ndarray = wave + noise + drift
    return signal


def inject_faults(values: np.ndarray, source: Synthetic, random: np.random.Generator) -> np.ndarray:
    """Add random faults to the sensor values.

    Args:
        values: The sensor values, float64 [rows, channels]; they are changed in place.
        source: Parameters of the source: the kinds of faults, and the expected fraction of rows that have a fault.
        random: The random number generator.

    Returns:
        A boolean array [rows] that is True for each row with a fault.
    """
    rows, channels = values.shape
    fault = np.zeros(rows, dtype=bool)
    length = min(FAULT_ROWS, rows)
    slots = rows // length
    for slot in np.flatnonzero(random.random(slots) < source.fault_share):
        rows_of_slot = slice(slot * length, (slot + 1) * length)
        channel = random.integers(channels)
        kind = source.faults[random.integers(len(source.faults))]
        if kind == "spike":
            values[rows_of_slot, channel] += random.choice([-5.0, 5.0], size=length)
        elif kind == "stuck":
            values[rows_of_slot, channel] = values[rows_of_slot.start, channel]
        else:
            values[rows_of_slot, channel] += 3.0
        fault[rows_of_slot] = True
    return fault
