"""The audit trail of rollouts: who changed what on which device, when, with what result. Read as CSV by `fleet audit`.

Each line of a rollout's audit.jsonl has the fields below and is never changed (fleet/audit.py).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from fleet import audit
from fleet.record import Record

FIELDS = ("time", "fleet", "rollout", "by", "commit", "action", "device", "release", "result", "seconds", "detail")


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
    """One line of this rollout."""
    audit.append(
        to.folder / audit.FILE,
        action,
        fleet=to.plan["fleet"],
        rollout=to.id,
        commit=to.plan.get("commit"),
        device=device,
        release=release,
        result=result,
        seconds=None if seconds is None else round(seconds, 3),
        detail=detail,
    )


def read(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """Every line of these rollouts; one that was cut says so in its detail."""
    for each in records:
        yield from of(each.folder / audit.FILE, each.id)


def of(path: Path, rollout: str | None = None) -> Iterator[dict[str, Any]]:
    """Every line of one file, which need not be there."""
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            yield {**dict.fromkeys(FIELDS), **json.loads(text)}
        except (ValueError, TypeError):
            yield {**dict.fromkeys(FIELDS), "rollout": rollout, "result": "cut short", "detail": text[:200]}


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
