"""Captured samples as JSON lines, as the pipeline's source `edge_devices` reads them: back into training.

A sample of an image or of audio is one line, its `values` flat. One of a series is a line for each of its time steps,
`values` by channel: the pipeline cuts its windows itself. Steps are as far apart as the release's rate says, the last
one at the time of the prediction. Where two labelled samples of a series overlap in time, the later one is left out:
their rows would mix.
"""

from __future__ import annotations

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

KEPT = ("release", "predicted", "confidence", "reason")


def export(config: Config, file: Path) -> SamplesResult:
    """Write the captured samples to `file`, completely or not at all. Raises StorageError."""
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
        raise StorageError(
            str(file), error.strerror or str(error), "a file that can be written", "name another place"
        ) from None
    with as_owner(config.layout.state):
        held = list(_described(folder))
        labelled = set(_labels(folder)) & {described["id"] for described in held}
    return SamplesResult(str(file), samples=len(held), labelled=len(labelled), lines=lines, size_bytes=size)


def export_lines(folder: Path, since: datetime | None, max_age_days: float) -> Iterator[bytes]:
    """The lines of every sample that is not too old and was predicted at `since` or later, oldest first."""
    labels = _labels(folder)
    oldest = datetime.now(timezone.utc) - timedelta(days=max_age_days)
    if since is not None:
        oldest = max(oldest, since)
    taken_until: datetime | None = None
    for path in ring.segments(folder):
        for described, content in ring.records(path):
            if "id" not in described or (at := datetime.fromisoformat(described["time"])) < oldest:
                continue
            label = labels.get(described["id"])
            values = np.frombuffer(content, "<f4").reshape(described["shape"])
            if described["input"]["kind"] != "series":
                yield _line(described, described["id"], at, label, values.ravel().tolist())
                continue
            form = described["input"]
            steps = np.moveaxis(values, form["axes"].index("time"), 0).reshape(-1, len(form["channels"]))
            step = timedelta(seconds=1 / (form["rate_hz"] or 1.0))
            first = at - step * (len(steps) - 1)
            if label is not None:
                if taken_until is not None and first <= taken_until:
                    continue
                taken_until = at
            for number, row in enumerate(steps.tolist()):
                named = dict(zip(form["channels"], row, strict=True))
                yield _line(described, f"{described['id']}-{number}", first + number * step, label, named)


def _line(described: dict[str, Any], number: str, at: datetime, label: str | None, values: Any) -> bytes:
    stamp = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    kept = {name: described[name] for name in KEPT}
    return json.dumps({"id": number, "time": stamp, "label": label, "values": values, **kept}).encode() + b"\n"


def _described(folder: Path) -> Iterator[dict[str, Any]]:
    for path in ring.segments(folder):
        yield from (described for described, _ in ring.records(path) if "id" in described)


def _labels(folder: Path) -> dict[str, str]:
    """The last label that came for each prediction."""
    records = (described for path in ring.segments(folder) for described, _ in ring.records(path))
    return {described["of"]: described["label"] for described in records if "of" in described}


def parse_since(value: str | None) -> datetime | None:
    """The time of a query `since=`. Raises ProblemError (422)."""
    if value is None:
        return None
    try:
        time_ = datetime.fromisoformat(value.strip().replace("Z", "+00:00").replace(" ", "+"))
        if time_.tzinfo is None:
            raise ValueError
        return time_.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise ProblemError(
            422, "`since` is no time", found=value[:80], expected="RFC 3339 with a zone, such as 2026-01-01T00:00:00Z"
        ) from None
