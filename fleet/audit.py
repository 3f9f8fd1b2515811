"""The audit trail: one JSON line per action, appended and flushed; nothing is ever rewritten.

Each line: time, fleet, rollout, who, commit, action, device, release, result, seconds, detail. Read as CSV by
`python -m fleet audit`, by device and by time.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from fleet import record
from fleet.record import Record

FIELDS = ("time", "fleet", "rollout", "who", "commit", "action", "device", "release", "result", "seconds", "detail")
FILE = "audit.jsonl"


def append(
    to: Record,
    action: str,
    *,
    result: str,
    device: str | None = None,
    release: str | None = None,
    seconds: float | None = None,
    detail: str = "",
) -> None:
    """One line. Its end is one write of one line, so that a kill leaves a whole line or a last one that is cut."""
    line = {
        "time": record.now(),
        "fleet": to.plan["fleet"],
        "rollout": to.id,
        "who": record.user(),
        "commit": to.plan.get("commit"),
        "action": action,
        "device": device,
        "release": release,
        "result": result,
        "seconds": None if seconds is None else round(seconds, 3),
        "detail": detail,
    }
    path = to.folder / FILE
    _end_line(path)
    with path.open("ab") as stream:
        stream.write(json.dumps(line, sort_keys=True).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _end_line(path: Path) -> None:
    """A line that a power cut left without its end gets one, so that the next one stands alone."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as stream:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")


def read(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """Every line of these rollouts; one that was cut says so in its detail."""
    for each in records:
        path = each.folder / FILE
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            try:
                yield json.loads(text)
            except ValueError:
                yield {**dict.fromkeys(FIELDS), "rollout": each.id, "result": "cut short", "detail": text[:200]}


def select(
    lines: Iterable[dict[str, Any]],
    device: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[dict[str, Any]]:
    """Lines about a device, from `since` on and before `until`."""
    for line in lines:
        at = datetime.fromisoformat(line["time"].replace("Z", "+00:00")) if line["time"] else None
        if device is not None and line["device"] != device:
            continue
        if at is None or ((since is None or at >= since) and (until is None or at < until)):
            yield line


def as_csv(lines: Iterable[dict[str, Any]]) -> str:
    """RFC 4180, with a header. A text that a spreadsheet would take for a formula is quoted with an apostrophe."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, extrasaction="ignore")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _harmless(line.get(name)) for name in FIELDS})
    return stream.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value
