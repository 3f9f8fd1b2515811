"""Where rows come from: one module per type of source, each with `async fetch(source, context) -> Raw`.

Enter at `FETCH`, by the type of a source. `base` holds what a source is given and what it returns; `http`, `decode`,
`threads`, `concurrency`, `normalise` and `writer` are what the sources share.
May import stages.tables.casting (no other part: see stages.collect), stages.params and stages.core.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from stages.collect.sources import cloud, edge_devices, embedded, external_api, sensors, synthetic
from stages.collect.sources.base import Context, FetchResult

FETCH: dict[str, Callable[[Any, Context], Awaitable[FetchResult]]] = {
    "cloud": cloud.fetch,
    "edge_devices": edge_devices.fetch,
    "embedded": embedded.fetch,
    "external_api": external_api.fetch,
    "sensors": sensors.fetch,
    "synthetic": synthetic.fetch,
}

__all__ = ["FETCH", "Context", "Raw"]
