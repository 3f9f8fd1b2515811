"""Read the samples that devices captured during operation. Each device is read over HTTP.

The response to `GET {url}/samples?since=<RFC 3339 time>` is `application/x-ndjson`: one JSON object per line with `id`,
`time` (null if unknown), `label` (null until a person labels the sample), `group` (optional; by default the device's
name) and `values` (for series an object that maps each channel to a number, for images and audio the sample as a flat
list of numbers). A device knows only the names of the classes, so a label can be a class name instead of a value of the
label column.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import pyarrow as pa

from stages.collect.sources.base import Context, FetchResult, JsonTableBuilder, LeftOut, Origin
from stages.collect.sources.concurrency import gather_all
from stages.collect.sources.http import check_response, open_session, with_retries
from stages.collect.sources.url_secrets import redact
from stages.params.collect import EdgeDevices

NO_LABEL = "no label"
REPLACED = "replaced by a later sample with the same id"


async def fetch(source: EdgeDevices, context: Context) -> FetchResult:
    """Return the labelled samples of all devices, sorted by device, time and id. Raises SourceError.

    Samples without a label are left out. If a device's response contains several labelled samples with the
    same id, only the last of them is kept. The result records both. It is an error if a device does not respond.
    """
    since = {} if source.since is None else {"since": source.since.astimezone(UTC).isoformat().replace("+00:00", "Z")}
    async with open_session(context) as http:
        responses = await gather_all(
            read_device(http, f"{url.rstrip('/')}/samples", since, context) for url in source.devices.values()
        )
    rows: list[dict[str, Any]] = []
    origins: list[Origin] = []
    unlabelled: list[str] = []
    replaced: list[str] = []
    for (device, url), content in zip(source.devices.items(), responses, strict=True):
        origins.append(Origin(redact(url), hashlib.sha256(content).hexdigest(), len(content)))
        samples = [parse_sample(line, device, url, context) for line in content.splitlines() if line.strip()]
        labelled: dict[str, dict[str, Any]] = {}
        for sample in samples:
            number = str(sample["id"])
            if sample[context.data.label] is None:
                unlabelled.append(f"{device}/{number}")
                continue
            if number in labelled:
                replaced.append(f"{device}/{number}")
            labelled[number] = sample
        rows += sorted(labelled.values(), key=lambda s: (str(s["time"]), str(s["id"])))
    if not rows:
        raise context.error(
            f"no labelled sample from {', '.join(source.devices)}",
            "at least one labelled sample",
            "label samples, or change `since:`",
        )
    builder = JsonTableBuilder("edge_devices", context)
    builder.add(rows)
    table: pa.Table = next(iter(builder.build(None).tables))
    unwanted = [name for name in ("id", "time") if name != context.data.time]
    left_out = [(NO_LABEL, unlabelled), (REPLACED, replaced)]
    return FetchResult(
        origins, [table.drop_columns(unwanted)], [LeftOut.record(reason, names) for reason, names in left_out if names]
    )


async def read_device(http: Any, url: str, since: dict[str, str], context: Context) -> bytes:
    """Request the samples of one device, and return its response.

    Args:
        http: The aiohttp session.
        url: URL of the device's samples.
        since: The query parameter `since`; an empty dictionary requests all samples.
        context: Provides the retry settings, and the source's name for error messages.

    Raises:
        SourceError: The device does not respond as expected.
    """

    async def attempt() -> bytes:
        async with http.get(url, params=since) as response:
            check_response(response, url, context)
            content: bytes = await response.read()
            return content

    return await with_retries(attempt, url, context)


def parse_sample(line: bytes, device: str, url: str, context: Context) -> dict[str, Any]:
    """Convert one line of a device's response to a row with the task's column names. The label can be None.

    Args:
        line: One sample as a JSON object.
        device: Name of the device, which becomes the group if the sample has no `group`.
        url: URL of the device, for error messages.
        context: Provides the task's `data` parameters, and the source's name for error messages.

    Raises:
        SourceError: The line is not a sample.
    """
    data = context.data
    try:
        sample = json.loads(line)
        label, values, time, number = sample["label"], sample["values"], sample["time"], sample["id"]
        label = label_value(label, data.classes)
        columns = dict(values) if data.kind == "series" else {"values": [float(value) for value in values]}
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise context.error(
            f"{redact(url)}: a line is not a sample ({error!r})",
            "a JSON object with id, time, label and values",
            "update the agent on this device",
        ) from None
    return {"id": number, "time": time, data.group: sample.get("group") or device, data.label: label, **columns} | (
        {data.time: time} if data.time else {}
    )


def label_value(label: Any, classes: Mapping[str, str]) -> Any:
    """Convert a class name to the class's value in the label column; any other label is returned unchanged.

    `classes` maps each value of the label column to a class name. Raises ValueError if `label` is the value of one
    class and the name of another class.
    """
    named = [value for value, name in classes.items() if name == label]
    if len(named) != 1 or named[0] == label:
        return label
    if label in classes:
        raise ValueError(f"label {label!r} is the label of one class and the name of another")
    return named[0]
