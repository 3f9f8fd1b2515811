"""Where rows come from: one module per type of source, each with `async fetch(source, context) -> Raw`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from stages.collect.sources import cloud, edge_devices, embedded, external_api, sensors, synthetic
from stages.collect.sources.base import Context, Raw
from stages.collect.sources.progress import Progress

FETCH: dict[str, Callable[[Any, Context], Awaitable[Raw]]] = {
    "cloud": cloud.fetch,
    "edge_devices": edge_devices.fetch,
    "embedded": embedded.fetch,
    "external_api": external_api.fetch,
    "sensors": sensors.fetch,
    "synthetic": synthetic.fetch,
}

__all__ = ["FETCH", "Context", "Progress", "Raw"]
