"""The types of data sources. Each type has a module with a function `async fetch(source, context) -> FetchResult`.

Start reading at `FETCH`, which maps the name of each type to its `fetch`. `base` defines the `context` argument and the
result of `fetch`. The sources share the modules `http`, `archives`, `selection`, `threads`, `concurrency`, `normalise`
and `writer`, and `decode`, which calls `csv_table`, `images` and `sound`. May import stages.params, stages.core and
stages.tables.casting, but no other part of stages.tables (the docstring of stages.collect gives the reason).
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
