"""Export captured samples for retraining, as JSON lines. The pipeline's data source `edge_devices` reads this format.

An image or audio sample is one line, whose `values` are a flat list. A sample of a time series is one line for each
time step, whose `values` are named by channel, because the pipeline divides time series into windows itself. The time
between two steps is the sampling interval of the release, and the last step has the time of the prediction. If two
labelled samples of a time series overlap in time, the later sample is omitted, because their time steps would be mixed.

If the time of a sample is unknown because the device's clock had not been set yet (sample_times.py), `time` is null.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.core.config import Config
from edge_agent.core.durable import sync_directory
from edge_agent.core.errors import StorageError
from edge_agent.core.privileges import as_owner
from edge_agent.inference.input_formats import ProblemError
from edge_agent.lifecycle.results import SamplesResult
from edge_agent.monitoring import ring
from edge_agent.monitoring.sample_times import SampleTimes, stamp

COPIED = ("release", "predicted", "confidence", "reason")


def export(config: Config, file: Path) -> SamplesResult:
    """Write all captured samples to `file` atomically, and return the numbers of samples, lines and bytes.

    Raises StorageError.
    """
    file, folder = Path(file), config.layout.samples
    partial = file.with_name(f".{file.name}.partial")
    lines = size = 0
    try:
        with partial.open("wb") as out, as_owner(config.layout.state):
            for line in export_lines(folder, None, config.capture.max_age_days):
                out.write(line)
                lines, size = lines + 1, size + len(line)
        partial.replace(file)
        sync_directory(file.absolute().parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(str(file), error.strerror or str(error), "a writable file", "choose another path") from None
    with as_owner(config.layout.state):
        ids = [metadata["id"] for metadata in _metadata(folder)]
        labelled = set(_labels(folder)) & set(ids)
    return SamplesResult(str(file), samples=len(ids), labelled=len(labelled), lines=lines, size_bytes=size)


def export_lines(folder: Path, since: datetime | None, max_age_days: float) -> Iterator[bytes]:
    """Yield the captured samples as JSON lines, the oldest sample first.

    Args:
        folder: The folder of the ring in which the samples are stored.
        since: Samples whose predictions are older than this time are omitted; None omits no samples.
        max_age_days: Samples whose predictions are older than this number of days are omitted. The age of a sample with
            an unknown time is the age of its file.
    """
    labels, times = _labels(folder), SampleTimes()
    for metadata in _metadata(folder):
        times.add(metadata)
    times.add(stamp())
    oldest = datetime.now(timezone.utc) - timedelta(days=max_age_days)
    newer_than = oldest if since is None else max(oldest, since)
    labelled = _Spans()
    for path in ring.segments(folder):
        unknown_is_old = ring.written_at(path) < oldest.timestamp()
        for metadata, content in ring.records(path):
            if "id" not in metadata:
                continue
            at = times.find(metadata)
            if unknown_is_old if at is None else at < newer_than:
                continue
            label = labels.get(metadata["id"])
            values = np.frombuffer(content, "<f4").reshape(metadata["shape"])
            if metadata["input"]["kind"] == "series":
                yield from _steps(metadata, at, label, values, labelled)
            else:
                yield _line(metadata, metadata["id"], at, label, values.ravel().tolist())


class _Spans:
    """Spans of time that do not overlap."""

    def __init__(self) -> None:
        self._spans: list[tuple[datetime, datetime]] = []

    def add(self, first: datetime, last: datetime) -> bool:
        """Add a span, and return True; or return False if the span overlaps with an earlier one."""
        place = bisect.bisect(self._spans, (first, last))
        if place and self._spans[place - 1][1] >= first:
            return False
        if place < len(self._spans) and self._spans[place][0] <= last:
            return False
        self._spans.insert(place, (first, last))
        return True


def _steps(
    metadata: dict[str, Any], at: datetime | None, label: str | None, values: np.ndarray, labelled: _Spans
) -> Iterator[bytes]:
    """Yield one line for each time step of a sample of a time series.

    Args:
        metadata: The description of the sample.
        at: The time of the last step, or None if it is unknown.
        label: The label of the sample, or None.
        values: The values of the sample, float32 [*shape].
        labelled: The spans of the labelled samples so far. A labelled sample that overlaps with one of them is omitted.
    """
    spec = metadata["input"]
    steps = np.moveaxis(values, spec["axes"].index("time"), 0).reshape(-1, len(spec["channels"]))
    step = timedelta(seconds=1 / (spec["rate_hz"] or 1.0))
    duration = step * (len(steps) - 1)
    if at is not None and label is not None and not labelled.add(at - duration, at):
        return
    for number, row in enumerate(steps.tolist()):
        before = step * number - duration
        by_channel = dict(zip(spec["channels"], row, strict=True))
        yield _line(metadata, f"{metadata['id']}-{number}", at, label, by_channel, before)


def _line(
    metadata: dict[str, Any],
    line_id: str,
    at: datetime | None,
    label: str | None,
    values: Any,
    before: timedelta = timedelta(0),
) -> bytes:
    """Return one line of the export.

    Args:
        metadata: The description of the sample.
        line_id: The id of the line.
        at: The time of the sample, or None if it is unknown. The line then has the boot and the time since the boot.
        label: The label of the sample, or None.
        values: The values of the line.
        before: The time from the sample to the line, which is 0 or negative.
    """
    copied = {name: metadata[name] for name in COPIED}
    if at is not None:
        stamp_text = (at + before).isoformat(timespec="microseconds").replace("+00:00", "Z")
        when: dict[str, Any] = {"time": stamp_text}
    else:
        when = {"time": None}
        if metadata.get("boot") is not None:
            when |= {"boot": metadata["boot"], "uptime_s": round(metadata["uptime_s"] + before.total_seconds(), 6)}
    return json.dumps({"id": line_id, **when, "label": label, "values": values, **copied}).encode() + b"\n"


def _metadata(folder: Path) -> Iterator[dict[str, Any]]:
    for path in ring.segments(folder):
        yield from (metadata for metadata, _ in ring.records(path) if "id" in metadata)


def _labels(folder: Path) -> dict[str, str]:
    """Return a dictionary from the id of each labelled prediction to its latest label."""
    records = (metadata for path in ring.segments(folder) for metadata, _ in ring.records(path))
    return {metadata["of"]: metadata["label"] for metadata in records if "of" in metadata}


def parse_since(value: str | None) -> datetime | None:
    """Return the time in the query parameter `since`, or None if the parameter is absent.

    Raises ProblemError with status 422 if the parameter is not a valid time.
    """
    if value is None:
        return None
    try:
        time_ = datetime.fromisoformat(value.strip().replace("Z", "+00:00").replace(" ", "+"))
        if time_.tzinfo is None:
            raise ValueError
        return time_.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise ProblemError(
            422,
            "`since` is not a valid time",
            found=value[:80],
            expected="RFC 3339 with a time zone, such as 2026-01-01T00:00:00Z",
        ) from None
