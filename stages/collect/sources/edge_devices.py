"""Samples that devices captured while they worked, read from each device over HTTP.

`GET {url}/samples?since=<RFC 3339 time>` answers `application/x-ndjson`: one JSON object per line with
`id`, `time`, `label` (null until somebody said what it was), `group` (optional; the device's name otherwise)
and `values`: for series an object channel -> number, for images and audio the flat list of the sample. A label is a
value of the label column or the name of its class, which is all that a device knows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import pyarrow as pa

from stages.collect.sources.base import Context, FetchResult, JsonTableBuilder, Origin, redact
from stages.collect.sources.concurrency import gather_all
from stages.collect.sources.http import check_response, open_session, with_retries
from stages.params.collect import EdgeDevices


async def fetch(source: EdgeDevices, context: Context) -> FetchResult:
    """The labelled samples of all devices, in order of device, time and id. Raises SourceError.

    A sample without a label teaches nothing and is left out; one that a device sends twice counts once. Every
    device must answer: a silent one is a failure.
    """
    since = {} if source.since is None else {"since": source.since.astimezone(UTC).isoformat().replace("+00:00", "Z")}
    async with open_session(context) as http:
        answers = await gather_all(
            read_device(http, f"{url.rstrip('/')}/samples", since, context) for url in source.devices.values()
        )
    rows: list[dict[str, Any]] = []
    origins: list[Origin] = []
    for (device, url), content in zip(source.devices.items(), answers, strict=True):
        origins.append(Origin(redact(url), hashlib.sha256(content).hexdigest(), len(content)))
        samples = [parse_sample(line, device, url, context) for line in content.splitlines() if line.strip()]
        labelled = {str(s["id"]): s for s in samples if s is not None}
        rows += sorted(labelled.values(), key=lambda s: (str(s["time"]), str(s["id"])))
    if not rows:
        raise context.error(
            f"no labelled sample came from {', '.join(source.devices)}", "at least one", "label some, or set `since:`"
        )
    together = JsonTableBuilder("edge_devices", context)
    together.add(rows)
    table: pa.Table = next(iter(together.build(None).tables))
    unwanted = [name for name in ("id", "time") if name != context.data.time]
    return FetchResult(origins, [table.drop_columns(unwanted)])


async def read_device(http: Any, url: str, since: dict[str, str], context: Context) -> bytes:
    async def attempt() -> bytes:
        async with http.get(url, params=since) as answer:
            check_response(answer, url, context)
            content: bytes = await answer.read()
            return content

    return await with_retries(attempt, url, context)


def parse_sample(line: bytes, device: str, url: str, context: Context) -> dict[str, Any] | None:
    """One line as a row under the task's own column names; None for a sample without a label. Raises SourceError."""
    data = context.data
    try:
        sample = json.loads(line)
        label, values, time, number = sample["label"], sample["values"], sample["time"], sample["id"]
        label = label_value(label, data.classes)
        columns = dict(values) if data.kind == "series" else {"values": [float(value) for value in values]}
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise context.error(
            f"{redact(url)}: a line is no sample ({error!r})", "id, time, label, values in JSON", "update the agent"
        ) from None
    if label is None:
        return None
    return {"id": number, "time": time, data.group: sample.get("group") or device, data.label: label, **columns} | (
        {data.time: time} if data.time else {}
    )


def label_value(label: Any, classes: Mapping[str, str]) -> Any:
    """What the label column holds for `label`. Raises ValueError where a class is named as another one's label."""
    named = [value for value, name in classes.items() if name == label]
    if len(named) != 1 or named[0] == label:
        return label
    if label in classes:
        raise ValueError(f"label {label!r} is one class's label and another one's name")
    return named[0]
